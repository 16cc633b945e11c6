// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "words.h"

static void say(const char *format, va_list args)
{
	char line[ANSWER_BYTES];
	int n = vsnprintf(line, sizeof(line) - 1, format, args);

	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* In one piece.  Who asked may be gone: the end of input says so. */
	if (write(STDOUT_FILENO, line, n) < 0)
		errno = 0;
}

void answer(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

struct json *answer_begin(void)
{
	static char text[ANSWER_BYTES - 16];
	static struct json j;

	json_begin(&j, text, sizeof(text));
	json_object(&j, NULL);
	return &j;
}

void answer_end(struct json *j)
{
	const char *text;

	json_end(j);
	text = json_text(j);
	answer("%s%s", j->failed ? "error " : "", text);
}

void die(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	answer("error %s", text);
	exit(1);
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

void volunteer_for_oom(void)
{
	if (write_file("/proc/self/oom_score_adj", "1000"))
		errno = 0;
}
