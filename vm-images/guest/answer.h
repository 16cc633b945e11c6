/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the programs that own memory speak: one JSON object a line, or "error ...". */
#ifndef FREEPAGE_ANSWER_H
#define FREEPAGE_ANSWER_H

#include "json.h"

#define ANSWER_BYTES	4096

/* A line for whoever asked. */
void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Begin an answer that is an object; all programs have room for one at a time. */
struct json *answer_begin(void);
/* Say it. */
void answer_end(struct json *j);

/* Say why this cannot go on, and end. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Seconds of the guest's monotonic clock. */
double now(void);

/* If somebody must go, then these, and never the agent. */
void volunteer_for_oom(void);

#endif /* FREEPAGE_ANSWER_H */
