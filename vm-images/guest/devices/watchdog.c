// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A watchdog, which a process pets in the background.
 *
 *   watchdog begin      open it, and pet it each second
 *   watchdog neglect    do not pet it any more: it is to bite after two seconds
 *   watchdog pet        open it anew, and pet it again
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "words.h"

#define WATCHDOG	"/dev/watchdog0"
#define IDENTITY	"/sys/class/watchdog/watchdog0/identity"
#define CALM		120	/* seconds: it does not bite while a guest moves */
#define SHORT		2

enum { PET = 1, NEGLECT };

static int open_with(int seconds)
{
	int fd = open(WATCHDOG, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, WDIOC_SETTIMEOUT, &seconds)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The letter says that it is meant: a watchdog of Linux's goes on when it is just closed. */
static void close_in_peace(int fd)
{
	if (fd >= 0 && write(fd, "V", 1) == 1)
		close(fd);
}

static void keep(struct shared *shared, void *argument)
{
	int fd = *(int *)argument, pets = 1;
	uint64_t carried_out = 0;

	for (;;) {
		uint64_t order = shared->order;

		if (order != carried_out) {
			close_in_peace(fd);
			pets = (order & 3) == PET;
			fd = open_with(pets ? CALM : SHORT);
			carried_out = order;
			if (fd < 0)
				shared->failed = errno;
			shared->done++;
		}
		if (pets && ioctl(fd, WDIOC_KEEPALIVE, 0) == 0)
			shared->count++;
		else if (pets)
			shared->failed = errno;
		poll(NULL, 0, pets ? 200 : 20);
	}
}

static void run_watchdog(int argc, char **argv)
{
	struct shared *shared = shared_of("watchdog");
	char name[64];
	int fd;

	if (argc != 1)
		unable("expected: watchdog begin|neglect|pet");
	if (!strcmp(argv[0], "begin")) {
		read_file(IDENTITY, name, sizeof(name));
		fd = open_with(CALM);
		if (fd < 0)
			unable(WATCHDOG ": %s", strerror(errno));
		in_background("watchdog", keep, &fd);
		did("%s is petted", name);
		return;
	}
	if (!shared)
		unable("nobody pets a watchdog");
	if (!strcmp(argv[0], "pet")) {
		give_order(shared, shared->done * 4 + PET, 0);
		wait_for_work(shared, shared->count);
		did("it is petted again");
	} else {
		wait_for_work(shared, shared->count);
		give_order(shared, shared->done * 4 + NEGLECT, 0);
		did("it was petted, and is not any more");
	}
}

DEVICE(watchdog, run_watchdog);
