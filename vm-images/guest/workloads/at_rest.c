// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that nobody touches while the guest is migrated.
 *
 *   idle        owns keep= bytes (default none)
 *   freed       fills BYTES with noise and frees it; owns keep= bytes (16 MiB)
 *   fragmented  fills BYTES, frees every odd page, owns every even one
 */
#define _GNU_SOURCE
#include "frames.h"
#include "serve.h"
#include "workload.h"

/* Noise differs from what is kept: a kept page full of noise must not pass. */
#define NOISE_GENERATION	1

static struct region region;

static void stop(void)
{
}

static struct tally verify(void)
{
	return check_all(&region);
}

static int other(const char *line)
{
	return answer_frames(&region, line);
}

/* These return the pages that the load wrote and gave back. */
static uint64_t load_kept(struct region *r, struct tally *t, uint64_t seed, uint64_t bytes, uint64_t keep)
{
	uint64_t page, pages = bytes / PAGE_BYTES;
	uint8_t *noise;

	demand(keep + bytes);
	region_map(r, seed, keep, 1);
	for (page = 0; page < r->pages; page++)
		write_owned(r, page, t);
	noise = map(pages * PAGE_BYTES, 1);
	for (page = 0; page < pages; page++)
		page_fill((uint64_t *)(noise + page * PAGE_BYTES), page_key(seed, page, NOISE_GENERATION));
	if (pages)
		munmap(noise, pages * PAGE_BYTES);
	return pages;
}

static uint64_t load_fragmented(struct region *r, struct tally *t, uint64_t seed, uint64_t bytes)
{
	uint64_t page;

	demand(bytes);
	/* Huge pages would hide from the allocator what is freed by the page. */
	region_map(r, seed, bytes, 0);
	for (page = 0; page < r->pages; page++)
		if (page % 2)
			write_page(r, page, 0);
		else
			write_owned(r, page, t);
	for (page = 1; page < r->pages; page += 2)
		free_pages(r, page, page + 1);
	return r->pages / 2;
}

static int run(int argc, char **argv)
{
	struct server server = { .stop = stop, .verify = verify, .other = other };
	int idle = !strcmp(argv[2], "idle"), i;
	uint64_t seed, bytes, keep = idle ? 0 : 16 * MIB, freed;
	struct tally t = { 0 };
	double since = now();

	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load KIND SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if (strncmp(argv[i], "keep=", 5) || parse_u64(argv[i] + 5, &keep))
			die("unknown option: %s", argv[i]);
	if ((bytes | keep) >> 46)
		die("that is no size");
	if (!strcmp(argv[2], "fragmented"))
		freed = load_fragmented(&region, &t, seed, bytes);
	else
		freed = load_kept(&region, &t, seed, idle ? 0 : bytes, keep);
	answer_work(argv[2], &t, freed, &server, since);
	while (serve(&server))
		;
	return 0;
}

WORKLOAD(idle, run);
WORKLOAD(freed, run);
WORKLOAD(fragmented, run);
