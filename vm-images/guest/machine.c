// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"
#include "words.h"

#define BALLOON_DRIVER	"/sys/bus/virtio/drivers/"
#ifndef MEMORY_BLOCKS
#define MEMORY_BLOCKS	"/sys/devices/system/memory"
#endif
#define PROCESSORS	"/sys/devices/system/cpu"
#define KEXEC_KERNEL	"/kexec/vmlinuz"
#define KEXEC_INITRD	"/kexec/initrd"

/* The device that a driver let go of last: there is no other way to find it again. */
static char machine_device[64];

void machine_note_device(const char *driver)
{
	char path[256];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), BALLOON_DRIVER "%s", driver);
	dir = opendir(path);
	machine_device[0] = '\0';
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "virtio", 6))
			snprintf(machine_device, sizeof(machine_device), "%.60s", entry->d_name);
	if (dir)
		closedir(dir);
}

int machine_driver(const char *driver, const char *what)
{
	char path[256];

	if (!machine_device[0]) {
		errno = ENODEV;
		return -1;
	}
	snprintf(path, sizeof(path), BALLOON_DRIVER "%s/%s", driver, what);
	return write_file(path, machine_device);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)b - *(const int *)a;
}

int machine_memory(const char *state, int most, int *changed)
{
	static int numbers[4096];
	int count = 0, done = 0, i;
	struct dirent *entry;
	char path[128], now[16];
	DIR *dir = opendir(MEMORY_BLOCKS);

	while (dir && count < 4096 && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "memory", 6) && entry->d_name[6] >= '0' &&
		    entry->d_name[6] <= '9')
			numbers[count++] = atoi(entry->d_name + 6);
	if (dir)
		closedir(dir);
	qsort(numbers, count, sizeof(*numbers), by_number);
	for (i = 0; i < count && done < most; i++) {
		snprintf(path, sizeof(path), MEMORY_BLOCKS "/memory%d/state", numbers[i]);
		read_file(path, now, sizeof(now));
		if (strncmp(now, !strcmp(state, "offline") ? "online" : "offline", 6))
			continue;
		/* What is to be taken offline again must hold nothing that cannot be moved. */
		if (!write_file(path, !strcmp(state, "online") ? "online_movable" : state) ||
		    !write_file(path, state))
			changed[done++] = numbers[i];
	}
	return done;
}

int machine_cpus(int online, int most, int *count)
{
	int cpu, done = 0;
	char path[128];

	*count = 1;
	for (cpu = 4095; cpu > 0; cpu--) {
		char state[2];

		snprintf(path, sizeof(path), PROCESSORS "/cpu%d/online", cpu);
		if (read_file(path, state, sizeof(state)) || !*state)
			continue;
		if (done < most && *state == (online ? '0' : '1') &&
		    !write_file(path, online ? "1" : "0")) {
			*state = online ? '1' : '0';
			done++;
		}
		*count += *state == '1';
	}
	return done;
}

int machine_offline_begin(void)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -1;
	if (!pid) {
		int changed[1];

		pid = fork();
		if (pid)
			_exit(pid < 0);
		machine_memory("offline", 1, changed);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status) {
		errno = EAGAIN;
		return -1;
	}
	return 0;
}

int machine_load_kernel(void)
{
	char cmdline[4096];
	int kernel = open(KEXEC_KERNEL, O_RDONLY | O_CLOEXEC);
	int initrd = open(KEXEC_INITRD, O_RDONLY | O_CLOEXEC);

	if (kernel < 0 || initrd < 0 || read_file("/proc/cmdline", cmdline, sizeof(cmdline)))
		return -1;
	return syscall(SYS_kexec_file_load, kernel, initrd, strlen(cmdline) + 1, cmdline, 0);
}
