/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a workload is loaded, and answers while it works: one command a line, one JSON object each. */
#ifndef FREEPAGE_SERVE_H
#define FREEPAGE_SERVE_H

#include <poll.h>

#include "region.h"

/*
 * A workload as whoever asks it sees it.  Work goes on until `stop` returns; it may
 * wait in there for what is under way.  `verify` checks all that the workload owns,
 * and counts under live_bad what is wrong and no page.  `other` may be NULL; it
 * answers and returns 1 if the line is a command of its own.
 */
struct server {
	uint64_t steps, checked, bad;		/* of the work, so far */
	void (*stop)(void);
	struct tally (*verify)(void);
	int (*other)(const char *line);
};

/* A word of its command line: `name=NUMBER`, or `name=ANYTHING` where `word` is there.  All have `advice=`. */
struct workload_option {
	const char *name;
	uint64_t *number;
	const char **word;
};

/* What it was called with. */
struct load {
	const char *kind;
	uint64_t seed, bytes;
};

#define MOST_EVENTS	4

/*
 * A workload as workload_main() runs it.
 *
 * `load` does what has to be done before the guest is ready, and tells in the tally what
 * is owned; it returns how many pages it wrote and gave back.  After that comes, again
 * and again: `events` says what to wait for beside a command, and how long
 * (milliseconds, or -1), and `work` is called with what came; `ready` is 0 when nothing did
 * in that time.
 */
struct workload_ops {
	struct server *server;
	const struct workload_option *options;	/* the last has no name; NULL: there are none */
	uint64_t (*load)(const struct load *load, struct tally *t);
	int (*events)(struct pollfd *in, int *timeout);	/* returns how many; NULL: only commands */
	void (*work)(const struct pollfd *in, int ready);
};

/* For the `run` of a workload: see workload.h.  Returns the exit status, at the end of input. */
int workload_main(int argc, char **argv, const struct workload_ops *ops);

/* The parts of it, for what does otherwise. */
void answer_work(const char *kind, const struct tally *t, uint64_t freed, const struct server *s,
		 double since);
/* Answer the command that waits on standard input.  Returns 0 at the end of input. */
int serve(const struct server *s);

/*
 * How much of `rate` a second is due since the last call.  What a long pause left
 * undone is not made up for, or a guest would burst after each.
 */
int64_t work_due(uint64_t rate, double *last);

/* Refuse what no guest has. */
void demand_size(uint64_t bytes);

#endif /* FREEPAGE_SERVE_H */
