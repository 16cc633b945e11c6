// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A keyboard, mouse or tablet, whose events a process reads in the background.
 *
 *   input begin NAME ADDRESS    the one on the PCI device at ADDRESS
 *   input count NAME            how many events have come, as eight bytes
 *   input wait NAME COUNT       wait until more than so many have
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device.h"

static void go_on(struct shared *shared, void *argument)
{
	struct input_event events[16];
	int fd = *(int *)argument;

	for (;;) {
		ssize_t n = read(fd, events, sizeof(events)), i;

		if (n <= 0 && errno != EINTR) {
			shared->failed = errno ? errno : EIO;
			return;
		}
		for (i = 0; i < n / (ssize_t)sizeof(*events); i++)
			shared->count += events[i].type != EV_SYN;
	}
}

static void run_input(int argc, char **argv)
{
	char name[64], path[80], shared_name[64];
	struct shared *shared;
	uint64_t count;
	int fd;

	if (argc < 2)
		unable("expected: input begin|count|wait NAME ..");
	snprintf(shared_name, sizeof(shared_name), "input-%.40s", argv[1]);
	if (!strcmp(argv[0], "begin") && argc == 3) {
		char folder[80];

		find_below(argv[2], "input", "input", folder, sizeof(folder));
		find_below(argv[2], folder, "event", name, sizeof(name));
		snprintf(path, sizeof(path), "/dev/input/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			unable("%s: %s", path, strerror(errno));
		in_background(shared_name, go_on, &fd);
		did("%s is read", path);
		return;
	}
	shared = shared_of(shared_name);
	if (!shared)
		unable("nobody reads %s", argv[1]);
	if (!strcmp(argv[0], "wait") && argc == 3) {
		count = number_word(argv[2]);
		while (shared->count <= count && !shared->failed)
			breathe();
		if (shared->failed)
			wrong("%s", strerror(shared->failed));
		did("an event came");
	}
	count = shared->count;
	value(&count, sizeof(count));
}

DEVICE(input, run_input);
