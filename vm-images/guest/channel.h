/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control channel, as the agent has it: lines that come, numbered calls and their
 * answers.  agent.c says what stands in a line.
 */
#ifndef FREEPAGE_CHANNEL_H
#define FREEPAGE_CHANNEL_H

#include <stdint.h>

#define LINE_BYTES	4096
/* Of an answer, without its number and "ok". */
#define TEXT_BYTES	(LINE_BYTES - 64)
#define MOST_WORDS	40	/* behind a verb; misbehave takes 33 */

/* A line of the host's; argv[0] is the verb. */
struct call {
	uint64_t n;
	int argc;
	char **argv;
};

/* Whoever carries calls out (verbs.c). */
struct callee {
	int (*under_way)(uint64_t n);		/* whether that call is being worked on */
	void (*called)(const struct call *c);
};

/* Open it.  Returns its descriptor; says why, and ends, if it cannot. */
int channel_open(const char *path, const struct callee *callee);
/* In a child of the agent's: it is not the child's. */
void channel_close(void);
/* Read what has come.  Write what waits to be written; whether anything does. */
void channel_read(void);
void channel_flush(void);
int channel_waits(void);
/* Wait until all of it has left the serial port. */
void channel_drain(void);

/*
 * Queue a line.  When nobody reads the channel, whole lines are dropped rather
 * than the agent blocked: the host asks again.
 */
void send_line(const char *text);
/* Answer a call. */
void reply(uint64_t n, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif /* FREEPAGE_CHANNEL_H */
