// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "disk.h"
#include "pieces.h"

static struct {
	int disk;
	uint64_t seed, count;	/* of pieces */
	uint8_t *base;
	uint32_t *from;		/* the piece of the disk that each piece holds */
} pieces;

static uint64_t *pieces_page(uint64_t page)
{
	return (uint64_t *)(pieces.base + page * PAGE_BYTES);
}

static void pieces_check(uint64_t page, struct tally *t)
{
	uint64_t from = pieces.from[page / PIECE_PAGES] * PIECE_PAGES + page % PIECE_PAGES;

	disk_check(pieces_page(page), from, page, t);
}

static void pieces_read(uint64_t to, uint64_t from)
{
	disk_read(pieces.disk, pieces_page(to * PIECE_PAGES), from * PIECE_PAGES, PIECE_PAGES);
	pieces.from[to] = from;
}

struct tally pieces_check_all(void)
{
	struct tally t = { 0 };
	uint64_t page;

	for (page = 0; page < pieces.count * PIECE_PAGES; page++)
		pieces_check(page, &t);
	return t;
}

struct tally pieces_load(uint64_t seed, uint64_t bytes)
{
	const uint64_t huge = 2 * MIB;
	uint64_t to;

	pieces.disk = disk_open(O_DIRECT);
	pieces.seed = seed;
	pieces.count = bytes / (PIECE_PAGES * PAGE_BYTES);
	if (!pieces.count)
		die("there is nothing to read");
	pieces.base = map(pieces.count * PIECE_PAGES * PAGE_BYTES + huge, 1);
	pieces.base += -(uintptr_t)pieces.base % huge;
	madvise(pieces.base, pieces.count * PIECE_PAGES * PAGE_BYTES, MADV_HUGEPAGE);
	pieces.from = map(pieces.count * sizeof(*pieces.from), 0);
	for (to = 0; to < pieces.count; to++)
		pieces_read(to, to);
	return pieces_check_all();
}

/* Its last page is checked before it is read anew: the first one is logged by the worst of devices. */
void pieces_step(struct server *s)
{
	uint64_t k = ++s->steps, to = mix64(pieces.seed + 2 * k * GOLDEN) % pieces.count;
	struct tally found = { 0 };

	pieces_check(to * PIECE_PAGES + PIECE_PAGES - 1, &found);
	s->checked += found.pages;
	s->bad += found.bad;
	pieces_read(to, mix64(pieces.seed + (2 * k + 1) * GOLDEN) % pieces.count);
}
