// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where the guest has told KVM to write to its memory: the values of KVM's own
 * registers, read as the processor has them.  Under another hypervisor there
 * are none, and reading one fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

/* A register that is not there is null. */
void msrs_read(int cpu, struct json *j)
{
	char path[64];
	size_t i;
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		msrs_load();
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		json_fail(j, "%s: %s", path, strerror(errno));
		return;
	}
	json_object(j, NULL);
	for (i = 0; i < sizeof(msrs_of_kvm) / sizeof(msrs_of_kvm[0]); i++) {
		uint64_t value;

		if (pread(fd, &value, sizeof(value), msrs_of_kvm[i].number) == sizeof(value))
			json_hex(j, msrs_of_kvm[i].name, value);
		else
			json_null(j, msrs_of_kvm[i].name);
	}
	json_end(j);
	close(fd);
}
