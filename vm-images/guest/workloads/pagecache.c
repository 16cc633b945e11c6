// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A disk that is read, for a guest that is about to be migrated: through the page
 * cache, or past it.
 *
 *   load KIND SEED BYTES [rate=PAGES]
 *
 * The disk's content is the formula with a seed of its own, so every page that is
 * read is checked.
 *
 *   pagecache  BYTES of the disk are read through the page cache and stay in it;
 *              then pages of it are read again, at random, `rate` a second.  A page
 *              of the cache that a migration broke is wrong, and nobody else would
 *              ever notice.
 *   dma        BYTES of memory that only the disk's device writes: see pieces.h;
 *              `rate` is in pages a second, too.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "pieces.h"
#include "serve.h"
#include "work.h"
#include "workload.h"

static struct {
	int disk;
	uint64_t seed, pages, rate;
	double last;
	int running, direct;
} cache = { .rate = 4000, .running = 1 };

static void stop(void);
static struct tally read_all(void);
static struct server server = { .stop = stop, .verify = read_all };

static void read_page(uint64_t page, struct tally *t)
{
	static uint64_t words[PAGE_WORDS];

	disk_read(cache.disk, words, page, 1);
	disk_check(words, page, page, t);
}

static struct tally read_all(void)
{
	struct tally t = { 0 };
	uint64_t page;

	for (page = 0; page < cache.pages; page++)
		read_page(page, &t);
	return t;
}

static void read_pages(int64_t due)
{
	struct tally found = { 0 };

	while (due-- > 0)
		read_page(mix64(cache.seed + ++server.steps * GOLDEN) % cache.pages, &found);
	server.checked += found.pages;
	server.bad += found.bad;
	work_done(found.pages);
}

static void read_pieces(int64_t due)
{
	while (due-- > 0) {
		pieces_step(&server);
		work_done(PIECE_PAGES);
	}
}

static void read_due(const struct pollfd *in, int ready)
{
	(void)in, (void)ready;
	if (cache.running && cache.direct)
		read_pieces(work_due((cache.rate + PIECE_PAGES - 1) / PIECE_PAGES, &cache.last));
	else if (cache.running)
		read_pages(work_due(cache.rate, &cache.last));
}

static int events(struct pollfd *in, int *timeout)
{
	(void)in;
	*timeout = cache.running ? 5 : -1;
	return 0;
}

static void stop(void)
{
	cache.running = 0;
}

static struct tally load_memory(const struct load *load)
{
	if (cache.direct) {
		server.verify = pieces_check_all;
		return pieces_load(load->seed, load->bytes);
	}
	cache.pages = load->bytes / PAGE_BYTES;
	if (!cache.pages)
		die("there is nothing to read");
	cache.disk = disk_open(0);
	return read_all();
}

static uint64_t load(const struct load *load, struct tally *t)
{
	cache.seed = load->seed;
	cache.direct = !strcmp(load->kind, "dma");
	*t = load_memory(load);
	if (t->bad)
		die("the disk does not hold what it must: %" PRIu64 " pages are wrong", t->bad);
	cache.last = now();
	return 0;
}

static const struct workload_option options[] = { { "rate", .number = &cache.rate }, { 0 } };

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = read_due,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(pagecache, run);
WORKLOAD(dma, run);
