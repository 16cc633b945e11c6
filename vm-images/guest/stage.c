// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The first process of a guest that lives on a disk: it finds the disk, and hands over.
 *
 * Build: gcc -Os -static -Wall -Wextra -s -o stage stage.c       installs as /init
 *
 * Loads the modules that /etc/modules.list names, mounts /dev/vda, carries what
 * belongs to this run (its keys) over to /run/freepage, and becomes the disk's own
 * /sbin/init.  What keeps it from that is one line on the console and the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define ROOT	"/root-disk"
#define OURS	ROOT "/run/freepage"

static void __attribute__((noreturn)) fatal(const char *what, const char *which)
{
	fprintf(stderr, "freepage-stage: fatal: %s %s: %s\r\n", what, which, strerror(errno));
	tcdrain(STDERR_FILENO);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void mount_one(const char *source, const char *where, const char *type, const char *data)
{
	mkdir(where, 0755);
	if (mount(source, where, type, 0, data) && errno != EBUSY)
		fatal("cannot mount", where);
}

static void load_modules(void)
{
	FILE *list = fopen("/etc/modules.list", "re");
	char name[128], path[192];
	int fd;

	if (!list)
		fatal("cannot read", "/etc/modules.list");
	while (fgets(name, sizeof(name), list)) {
		name[strcspn(name, "\n")] = '\0';
		snprintf(path, sizeof(path), "/lib/modules/%s.ko", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			fatal("module", name);
		close(fd);
	}
	fclose(list);
}

/* A run's own file, out of the memory that this stage runs in. */
static void carry(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char bytes[4096];
	ssize_t n;

	if (in < 0 || out < 0)
		fatal("cannot carry over", from);
	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		if (write(out, bytes, n) != n)
			fatal("cannot write", to);
	close(in);
	close(out);
}

int main(void)
{
	static const char *const kept[] = { "/dev", "/proc", "/sys" };
	char target[64];
	size_t i;

	mount_one("devtmpfs", "/dev", "devtmpfs", NULL);
	mount_one("proc", "/proc", "proc", NULL);
	mount_one("sysfs", "/sys", "sysfs", NULL);
	load_modules();
	mount_one("/dev/vda", ROOT, "ext4", NULL);
	mount_one("tmpfs", ROOT "/run", "tmpfs", "mode=755");
	if (mkdir(OURS, 0700))
		fatal("cannot make", OURS);
	carry("/etc/ssh/ssh_host_ed25519_key", OURS "/ssh_host_ed25519_key");
	carry("/root/.ssh/authorized_keys", OURS "/authorized_keys");
	for (i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
		snprintf(target, sizeof(target), ROOT "%s", kept[i]);
		if (mount(kept[i], target, NULL, MS_MOVE, NULL))
			fatal("cannot move", kept[i]);
	}
	if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("cannot change to", "the disk");
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	fatal("cannot become", "/sbin/init");
}
