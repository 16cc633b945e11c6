/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest gets done, and how much memory it has left, sampled by the agent.
 *
 * `watch MS` begins: every MS milliseconds of the guest's own time a sample of
 * MemFree and of the workload's counter (work.h) is taken.  `window FROM TO` sums up
 * those between two instants of the clock that `clock` tells (microseconds).  That clock
 * stands while the guest is stopped, so a pause is no part of any window.
 *
 * `orders` is the kernel's own count of free blocks by order, over all zones.
 */
#ifndef FREEPAGE_WATCH_H
#define FREEPAGE_WATCH_H

#include "json.h"

/* What to poll for; -1: nobody has said `watch`. */
int watch_timer(void);
/* It has expired. */
void watch_take(void);

/* Carry one of these verbs out.  Returns -1 if the words are none of them. */
int watch_do(int argc, char **argv, struct json *j);

#endif /* FREEPAGE_WATCH_H */
