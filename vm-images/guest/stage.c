// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The first process of a guest that lives on a disk: it finds the disk, and hands over.
 *
 * Loads the modules that /etc/modules.list names, mounts /dev/vda, carries what
 * belongs to this run (its keys) over to /run/freepage, and becomes the disk's own
 * /sbin/init.  What keeps it from that is fatal (boot.h).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"

#define ROOT	"/root-disk"
#define OURS	ROOT "/run/freepage"

/* A run's own file, out of the memory that this stage runs in. */
static void carry(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char bytes[4096];
	ssize_t n;

	if (in < 0 || out < 0)
		fatal("cannot carry over %s: %s", from, strerror(errno));
	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		if (write(out, bytes, n) != n)
			fatal("cannot write %s: %s", to, strerror(errno));
	close(in);
	close(out);
}

int main(void)
{
	static const char *const kept[] = { "/dev", "/proc", "/sys" };
	char target[64];
	size_t i;

	boot_begin("freepage-stage");
	mount_one("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount_one("proc", "/proc", "proc", 0, NULL);
	mount_one("sysfs", "/sys", "sysfs", 0, NULL);
	if (load_modules("/etc/modules.list"))
		fatal("cannot read /etc/modules.list: %s", strerror(errno));
	mount_one("/dev/vda", ROOT, "ext4", 0, NULL);
	mount_one("tmpfs", ROOT "/run", "tmpfs", 0, "mode=755");
	if (mkdir(OURS, 0700))
		fatal("cannot make " OURS ": %s", strerror(errno));
	carry("/etc/ssh/ssh_host_ed25519_key", OURS "/ssh_host_ed25519_key");
	carry("/root/.ssh/authorized_keys", OURS "/authorized_keys");
	for (i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
		snprintf(target, sizeof(target), ROOT "%s", kept[i]);
		if (mount(kept[i], target, NULL, MS_MOVE, NULL))
			fatal("cannot move %s: %s", kept[i], strerror(errno));
	}
	if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("cannot change to the disk: %s", strerror(errno));
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	fatal("cannot become /sbin/init: %s", strerror(errno));
}
