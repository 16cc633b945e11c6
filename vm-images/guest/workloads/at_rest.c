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

static struct server server = { .stop = stop, .verify = verify, .other = other };

/* These return the pages that the load wrote and gave back. */
static uint64_t load_kept(struct region *r, struct tally *t, uint64_t seed, uint64_t bytes, uint64_t keep)
{
	uint64_t page, pages = bytes / PAGE_BYTES;
	uint8_t *noise;

	demand(keep + bytes);
	region_load(r, seed, keep, 1, t);
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
	/* Where the kernel's pages are larger, it gets none of these: each has a page that is owned. */
	for (page = 1; page < r->pages; page += 2)
		free_pages(r, page, page + 1);
	return r->pages / 2;
}

/* Of idle and freed. */
static uint64_t keep;
static const struct workload_option options[] = { { "keep", .number = &keep }, { 0 } };

static uint64_t load(const struct load *load, struct tally *t)
{
	demand_size(keep);
	if (!strcmp(load->kind, "fragmented"))
		return load_fragmented(&region, t, load->seed, load->bytes);
	return load_kept(&region, t, load->seed, strcmp(load->kind, "idle") ? load->bytes : 0, keep);
}

static const struct workload_ops ops = { .server = &server, .options = options, .load = load };

static int run(int argc, char **argv)
{
	keep = strcmp(argv[2], "idle") ? 16 * MIB : 0;
	return workload_main(argc, argv, &ops);
}

WORKLOAD(idle, run);
WORKLOAD(freed, run);
WORKLOAD(fragmented, run);
