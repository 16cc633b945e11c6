/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a script does to the machine from within: drivers, memory blocks, a new kernel. */
#ifndef FREEPAGE_MACHINE_H
#define FREEPAGE_MACHINE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BALLOON_DRIVER	"/sys/bus/virtio/drivers/"
#ifndef MEMORY_BLOCKS
#define MEMORY_BLOCKS	"/sys/devices/system/memory"
#endif
#define KEXEC_KERNEL	"/kexec/vmlinuz"
#define KEXEC_INITRD	"/kexec/initrd"

static int machine_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), result;

	if (fd < 0)
		return -1;
	result = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	close(fd);
	return result;
}

/* The device that a driver let go of last: there is no other way to find it again. */
static char machine_device[64];

/* Note which device a driver has, before it lets go of it. */
static void machine_note_device(const char *driver)
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

/* Bind or unbind it.  Takes as long as the driver needs: it may wait for the host. */
static int machine_driver(const char *driver, const char *what)
{
	char path[256];

	if (!machine_device[0]) {
		errno = ENODEV;
		return -1;
	}
	snprintf(path, sizeof(path), BALLOON_DRIVER "%s/%s", driver, what);
	return machine_write(path, machine_device);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)b - *(const int *)a;
}

/*
 * Blocks from the top, until `most` have changed to `state`.  A block with an
 * unmovable page in it says no, which is nothing unusual.  Returns how many.
 */
static int machine_memory(const char *state, int most, int *changed)
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
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), MEMORY_BLOCKS "/memory%d/state", numbers[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, now, sizeof(now) - 1);
		if (fd >= 0)
			close(fd);
		now[n > 0 ? n : 0] = '\0';
		if (strncmp(now, !strcmp(state, "offline") ? "online" : "offline", 6))
			continue;
		/* What is to be taken offline again must hold nothing that cannot be moved. */
		if (!machine_write(path, !strcmp(state, "online") ? "online_movable" : state) ||
		    !machine_write(path, state))
			changed[done++] = numbers[i];
	}
	return done;
}

#define PROCESSORS	"/sys/devices/system/cpu"

/* What a file of the kernel's says first; 0 if there is none. */
static char machine_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char c = 0;

	if (fd < 0)
		return 0;
	if (read(fd, &c, 1) != 1)
		c = 0;
	close(fd);
	return c;
}

/*
 * Processors from the top, until `most` have been taken online or offline.  The first
 * has no switch.  Returns how many, and counts those that are online then.
 */
static int machine_cpus(int online, int most, int *count)
{
	int cpu, done = 0;
	char path[128];

	*count = 1;
	for (cpu = 4095; cpu > 0; cpu--) {
		char state;

		snprintf(path, sizeof(path), PROCESSORS "/cpu%d/online", cpu);
		state = machine_read(path);
		if (!state)
			continue;
		if (done < most && state == (online ? '0' : '1') &&
		    !machine_write(path, online ? "1" : "0")) {
			state = online ? '1' : '0';
			done++;
		}
		*count += state == '1';
	}
	return done;
}

/*
 * Begin to take one block offline, in a process of its own: the module stands in the
 * middle of it.  Nobody waits for that process but init.
 */
static int machine_offline_begin(void)
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

/* The kernel that the image brought along, with the command line of this one. */
static int machine_load_kernel(void)
{
	char cmdline[4096];
	int kernel = open(KEXEC_KERNEL, O_RDONLY | O_CLOEXEC);
	int initrd = open(KEXEC_INITRD, O_RDONLY | O_CLOEXEC);
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, cmdline, sizeof(cmdline) - 1);

	if (kernel < 0 || initrd < 0 || n <= 0)
		return -1;
	cmdline[n] = '\0';
	cmdline[strcspn(cmdline, "\n")] = '\0';
	return syscall(SYS_kexec_file_load, kernel, initrd, strlen(cmdline) + 1, cmdline, 0);
}

#endif /* FREEPAGE_MACHINE_H */
