/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Children of the agent's: programs that own memory, and jobs, which do what may take
 * long.  Each writes a line for each call; one that ends is waited for only when it is
 * gone.
 */
#ifndef FREEPAGE_WORKER_H
#define FREEPAGE_WORKER_H

#include <poll.h>
#include <sys/types.h>

#include "channel.h"
#include "json.h"

#define MOST_JOBS	4

struct worker {
	const char *name;
	pid_t pid;		/* 0: there is none */
	int fd;			/* -1: it says nothing any more */
	uint64_t n;		/* the call that waits for its answer, or 0 */
	int once;		/* it answers one call and ends */
	int loaded, held, killed;
	char line[LINE_BYTES];
	size_t used;
	uint64_t then;		/* the call that waits for its end, or 0 */
	char **next;		/* what is started then; NULL: nothing */
};

/* The programs that there is one of at a time. */
extern struct worker load_worker, exercise_worker, pages_worker;

#define NR_WORKERS	(3 + MOST_JOBS)

/* Where the programs are: before all else.  Returns what to poll for, beside their words. */
int workers_begin(const char *programs);
/* What they say: so many entries of a poll, and those entries when it has returned. */
void workers_poll(struct pollfd wait[NR_WORKERS]);
void workers_read(const struct pollfd wait[NR_WORKERS]);
/* Who has ended?  What it said last is read first. */
void workers_ended(void);
/* Whether a call waits for one of them. */
int worker_has(uint64_t n);

/* Start it for a call, instead of what runs. */
void worker_start(struct worker *w, uint64_t n, char *const *argv);
/* End it; the call is answered when its memory is free. */
void worker_stop(struct worker *w, uint64_t n);
/* Have it answer a call. */
void worker_ask(struct worker *w, uint64_t n, const char *verb, const char *argument);

/* Do what may take long in a child, whose JSON is the answer. */
void job(const struct call *c, void (*run)(const struct call *c, struct json *j));
/* A program of its own for this call, whose line is the answer. */
void job_program(const struct call *c, const char *name);

#endif /* FREEPAGE_WORKER_H */
