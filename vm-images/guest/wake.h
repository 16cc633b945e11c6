/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that was kept in a file, and goes on somewhere else, at another time. */
#ifndef FREEPAGE_WAKE_H
#define FREEPAGE_WAKE_H

#include "json.h"

/*
 * `wake NANOSECONDS HEX`: set the wall clock (since 1970), and have the kernel begin its
 * random numbers anew from these bytes: every guest that goes on from one file would
 * draw the same ones.
 */
void wake(char **argv, struct json *j);

#endif /* FREEPAGE_WAKE_H */
