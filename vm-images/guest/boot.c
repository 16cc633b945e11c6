// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "boot.h"

#define MODULE_DIR	"/lib/modules/"

static const char *speaker = "freepage";

void boot_begin(const char *name)
{
	speaker = name;
}

static void say_line(const char *mark, const char *format, va_list args)
{
	char text[400], line[512];
	int n;

	vsnprintf(text, sizeof(text), format, args);
	n = snprintf(line, sizeof(line), "%s: %s%s\r\n", speaker, mark, text);
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_line("", format, args);
	va_end(args);
}

void power_off(void)
{
	if (getpid() != 1)
		_exit(1);
	/* The console's last line must leave before the machine does. */
	tcdrain(STDERR_FILENO);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_line("fatal: ", format, args);
	va_end(args);
	power_off();
}

void mount_one(const char *source, const char *where, const char *type, unsigned long flags,
	       const char *data)
{
	mkdir(where, 0755);
	if (mount(source, where, type, flags, data) && errno != EBUSY)
		fatal("cannot mount %s on %s: %s", source, where, strerror(errno));
}

void load_module(const char *name, const char *parameters)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), MODULE_DIR "%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fatal("module %s: %s: %s", name, path, strerror(errno));
	if (syscall(SYS_finit_module, fd, parameters, 0) && errno != EEXIST)
		fatal("module %s: %s", name, strerror(errno));
	close(fd);
}

int load_modules(const char *list)
{
	FILE *file = fopen(list, "re");
	char line[128];

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (line[0] && line[0] != '#')
			load_module(line, "");
	}
	fclose(file);
	return 0;
}
