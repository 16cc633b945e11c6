/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a first process does, of whichever guest: it mounts, loads modules, and ends the
 * machine when the guest cannot become what was asked for.
 */
#ifndef FREEPAGE_BOOT_H
#define FREEPAGE_BOOT_H

/* With this status the agent asks whoever started it for power off. */
#define AGENT_POWEROFF	42

/* The name under which it speaks: before all else. */
void boot_begin(const char *name);

/* A line on the console. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The end of the machine, or of a process that is not its first. */
void power_off(void) __attribute__((noreturn));
/*
 * One line, then power off.  Never a reboot: a guest that fails must not fail again and
 * again until somebody's timeout.
 */
void fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Mount it, unless it is there; the folder is made. */
void mount_one(const char *source, const char *where, const char *type, unsigned long flags,
	       const char *data);

/* One of /lib/modules, by name; one that is there already is left alone. */
void load_module(const char *name, const char *parameters);
/*
 * Those that a file names, one a line, in this order; what is built in is simply not
 * listed.  Returns -1 if there is no such file.
 */
int load_modules(const char *list);

#endif /* FREEPAGE_BOOT_H */
