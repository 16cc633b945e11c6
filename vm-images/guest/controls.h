/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The module's controls for tests, where it was built with them: holds of its
 * walk, and ways to make it go wrong.  See guest-module/hold.c and misbehave.c for the files.
 */
#ifndef FREEPAGE_CONTROLS_H
#define FREEPAGE_CONTROLS_H

#include "json.h"

/* A call that waits for the module to stand at a point. */
struct standing {
	int fd;			/* -1: nobody waits */
	uint64_t n;
};

/* Begin to wait; `j` fails if that cannot be. */
void standing_begin(struct standing *s, uint64_t n, const char *point, struct json *j);
void standing_end(struct standing *s);
/* Returns whether there is an answer: it stands, or never will. */
int standing_read(struct standing *s, struct json *j);

/* Carry one of these verbs out.  Returns -1 if the words are none of them. */
int controls_do(int argc, char **argv, struct json *j);

#endif /* FREEPAGE_CONTROLS_H */
