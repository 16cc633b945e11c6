/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a workload gets done, told to whoever measures: a counter in a page that the
 * agent shares with its children.  A workload that does no work leaves it alone.
 */
#ifndef FREEPAGE_WORK_H
#define FREEPAGE_WORK_H

#include <stdatomic.h>
#include <stdint.h>

/* In the agent, before it has children.  Without it nothing counts work. */
void work_share(void);

/* So much more is done; nothing happens where nobody counts. */
void work_done(uint64_t amount);

/* All so far. */
uint64_t work_so_far(void);

#endif /* FREEPAGE_WORK_H */
