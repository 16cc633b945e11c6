/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that a device writes, and nobody else: kind "dma".
 *
 * BYTES of memory are read from the disk past the page cache, a piece of 16 pages
 * at a time, into pages that are contiguous where the kernel has huge ones: so one
 * write of the device's covers many pages.  After that one piece after the other is
 * read again, from another place of the disk, at random.  No processor ever writes
 * to these pages: whoever logs writes has to have them from the device.
 *
 * Step k puts pieces_from(k) of the disk where pieces_to(k) is in memory, so the
 * host can replay it from the number of steps.
 */
#ifndef FREEPAGE_PIECES_H
#define FREEPAGE_PIECES_H

#include "serve.h"

#define PIECE_PAGES	16UL

struct tally pieces_load(uint64_t seed, uint64_t bytes);
struct tally pieces_check_all(void);
void pieces_step(struct server *s);

#endif /* FREEPAGE_PIECES_H */
