// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Model specific registers, read as the processor has them.  By name KVM's own, which say
 * where the guest has told KVM to write to its memory: under another hypervisor there are
 * none, and reading one fails.  By number any others.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine.h"

#define MSR_MODULE	"/lib/modules/msr.ko"

static const struct {
	const char *name;
	uint32_t number;
} msrs_of_kvm[] = {
	{ "wall_clock", 0x4b564d00 },
	{ "system_time", 0x4b564d01 },
	{ "async_pf", 0x4b564d02 },
	{ "steal_time", 0x4b564d03 },
	{ "pv_eoi", 0x4b564d04 },
};

/* Built in, loaded already, or not there at all: opening the device tells. */
static void msrs_load(void)
{
	int fd = open(MSR_MODULE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	syscall(SYS_finit_module, fd, "", 0);
	close(fd);
}

/* The registers of a processor; negative, with the answer written: there are none. */
static int msrs_open(int cpu, struct json *j)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		msrs_load();
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		json_fail(j, "%s: %s", path, strerror(errno));
	}
	return fd;
}

/* One that is not there is null. */
static void msr_read(int fd, uint32_t number, const char *name, struct json *j)
{
	uint64_t value;

	if (pread(fd, &value, sizeof(value), number) == sizeof(value))
		json_hex(j, name, value);
	else
		json_null(j, name);
}

void msrs_read(int cpu, struct json *j)
{
	int fd = msrs_open(cpu, j);
	size_t i;

	if (fd < 0)
		return;
	json_object(j, NULL);
	for (i = 0; i < sizeof(msrs_of_kvm) / sizeof(msrs_of_kvm[0]); i++)
		msr_read(fd, msrs_of_kvm[i].number, msrs_of_kvm[i].name, j);
	json_end(j);
	close(fd);
}

void msrs_read_numbers(int cpu, int count, char *const numbers[], struct json *j)
{
	int fd = msrs_open(cpu, j), i;

	if (fd < 0)
		return;
	json_object(j, NULL);
	json_list(j, "values");
	for (i = 0; i < count; i++)
		msr_read(fd, strtoul(numbers[i], NULL, 0), NULL, j);
	json_end(j);
	json_end(j);
	close(fd);
}
