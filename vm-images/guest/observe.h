/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel says about itself: its log, its memory, the module's counters. */
#ifndef FREEPAGE_OBSERVE_H
#define FREEPAGE_OBSERVE_H

#include "json.h"

#define MODULE_STATS	"/sys/kernel/debug/freepage_balloon"

/* Memory, and all that the module counts. */
void observe_stats(struct json *j);

/*
 * The kernel's warnings, and those among them that mean trouble.  Records up to sequence
 * number `after` are left out; the answer has the newest number, so that whoever asks
 * again can ask for what is new.  Who does is told of leaks as well.
 */
void observe_kmsg(struct json *j, long long after);

#endif /* FREEPAGE_OBSERVE_H */
