// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's end of the control channel.
 *
 *   agent --tty PATH [--driver NAME] [--programs DIR]
 *
 * The host writes one line, `<n> <verb> [args]`; the answer is one line,
 * `<n> ok {json}` or `<n> error <text>`.  Lines are ASCII and at most 4096 bytes.
 * What comes unasked starts with `! `, but for the first line, `ready {json}`.
 *
 * The channel is a serial port that is migrated in the middle of a byte, so:
 *  - the numbers of one host only grow.  A number that was answered before gets
 *    the same answer again, one that is being worked on is ignored: the host may
 *    ask again whenever a line may have been lost, and nothing is done twice;
 *  - NAK (0x15) drops what was received of a line: the host sends it before it
 *    asks again on a new connection.
 *
 * Memory belongs to children (workload, exercise): the agent itself stays small,
 * answers always, and reports a child that dies.  So it waits for nothing: what may
 * take long in the kernel is done by a child as well (a job), and a child that ends
 * is waited for only when it is gone.
 *
 * What it can do is in the table of verbs (verbs.c).  A verb is a function and a
 * line of that table.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>

#include "boot.h"
#include "channel.h"
#include "verbs.h"
#include "watch.h"
#include "work.h"
#include "worker.h"

enum { TTY, HELD, TIMER, CHILDREN, WORKERS };

/* Wait, and see to what has come.  Returns -1 when the channel is gone. */
static int turn(int tty, int children)
{
	struct pollfd wait[WORKERS + NR_WORKERS] = {
		[TTY] = { tty, POLLIN | (channel_waits() ? POLLOUT : 0), 0 },
		[HELD] = { verbs_held(), POLLIN, 0 },
		[TIMER] = { watch_timer(), POLLIN, 0 },
		[CHILDREN] = { children, POLLIN, 0 },
	};

	workers_poll(wait + WORKERS);
	if (poll(wait, WORKERS + NR_WORKERS, -1) < 0)
		return 0;
	if (wait[TIMER].revents)
		watch_take();
	if (wait[TTY].revents & POLLOUT)
		channel_flush();
	if (wait[TTY].revents & POLLIN)
		channel_read();
	else if (wait[TTY].revents & (POLLHUP | POLLERR))
		return -1;
	workers_read(wait + WORKERS);
	if (wait[CHILDREN].revents)
		workers_ended();
	if (wait[HELD].revents && verbs_held() == wait[HELD].fd)
		verbs_held_changed();
	return 0;
}

int main(int argc, char **argv)
{
	const char *tty = NULL, *driver = "none", *programs = "/bin";
	int i, channel, children, how;

	for (i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--tty"))
			tty = argv[i + 1];
		else if (!strcmp(argv[i], "--driver"))
			driver = argv[i + 1];
		else if (!strcmp(argv[i], "--programs"))
			programs = argv[i + 1];
	}
	if (!tty) {
		fprintf(stderr, "usage: agent --tty PATH [--driver NAME] [--programs DIR]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	verbs_begin(driver);
	children = workers_begin(programs);
	channel = channel_open(tty, &verbs_callee);
	work_share();
	verbs_greet();
	while (!verbs_going_down(&how) || channel_waits())
		if (turn(channel, children))
			return 1;
	channel_drain();
	if (how && reboot(how))
		return 1;
	return AGENT_POWEROFF;
}
