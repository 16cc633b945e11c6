/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands of the host's: a program that is run in a child of its own, what it
 * writes kept in a file, its end told.
 *
 * The file's name has the number of the call, so an answer that is asked for twice
 * is the same.  There is one such file: the next command removes it.
 */
#ifndef FREEPAGE_COMMAND_H
#define FREEPAGE_COMMAND_H

#include "json.h"

/* Forget the output of the command before, and remember the next one's. */
void command_next(uint64_t n);
/*
 * In a child of the agent's: run these words, each hexadecimal digits behind an x, so that
 * they may hold anything.
 */
void command_run(uint64_t n, int seconds, int count, char *const *hex, struct json *j);
/* A piece of what a command has written. */
void command_output(uint64_t n, uint64_t from, struct json *j);

#endif /* FREEPAGE_COMMAND_H */
