/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a workload answers while it works: one command a line, one JSON object each. */
#ifndef FREEPAGE_SERVE_H
#define FREEPAGE_SERVE_H

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

static inline void answer_work(const char *kind, const struct tally *t, uint64_t freed,
			       const struct server *s, double since)
{
	answer_tally(kind, t, since);
	answer(",\"freed\":%" PRIu64 ",\"steps\":%" PRIu64 ",\"live_checked\":%" PRIu64
	       ",\"live_bad\":%" PRIu64 "}\n", freed, s->steps, s->checked, s->bad);
}

/* Answer the command that waits on standard input.  Returns 0 at the end of input. */
static inline int serve(const struct server *s)
{
	char line[256];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);
	struct tally t = { 0 };
	double since = now();

	if (n <= 0)
		return 0;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (!strcmp(line, "stop")) {
		s->stop();
		answer_work("stop", &t, 0, s, since);
	} else if (!strcmp(line, "verify")) {
		t = s->verify();
		answer_work("verify", &t, 0, s, since);
	} else if (!s->other || !s->other(line)) {
		answer("error unknown command\n");
	}
	return 1;
}

/*
 * How much of `rate` a second is due since the last call.  What a long pause left
 * undone is not made up for, or a guest would burst after each.
 */
static inline int64_t work_due(uint64_t rate, double *last)
{
	double longest = rate < 40 ? 2.0 / rate : 0.05;
	double t = now(), elapsed = t - *last;
	int64_t due = rate ? (int64_t)((elapsed < longest ? elapsed : longest) * rate) : 0;

	if (due > 0)
		*last = t;
	return due;
}

#endif /* FREEPAGE_SERVE_H */
