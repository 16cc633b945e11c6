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
#include <poll.h>

#include "disk.h"
#include "pieces.h"
#include "serve.h"
#include "watch.h"
#include "workload.h"

static struct {
	int disk;
	uint64_t pages, rate;
	volatile uint64_t *work;
	int running;
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

static void read_due(uint64_t seed, double *last)
{
	int64_t due = work_due(cache.rate, last);
	struct tally found = { 0 };

	while (due-- > 0)
		read_page(mix64(seed + ++server.steps * GOLDEN) % cache.pages, &found);
	server.checked += found.pages;
	server.bad += found.bad;
	if (cache.work)
		*cache.work += found.pages;
}

static void read_pieces_due(double *last)
{
	int64_t due = work_due((cache.rate + PIECE_PAGES - 1) / PIECE_PAGES, last);

	while (due-- > 0) {
		pieces_step(&server);
		if (cache.work)
			*cache.work += PIECE_PAGES;
	}
}

static void stop(void)
{
	cache.running = 0;
}

static struct tally load(const char *kind, uint64_t seed, uint64_t bytes)
{
	if (!strcmp(kind, "dma")) {
		server.verify = pieces_check_all;
		return pieces_load(seed, bytes);
	}
	cache.pages = bytes / PAGE_BYTES;
	if (!cache.pages)
		die("there is nothing to read");
	cache.disk = disk_open(0);
	return read_all();
}

static int run(int argc, char **argv)
{
	uint64_t seed, bytes;
	double since = now(), last;
	struct tally t;
	int i, direct;

	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load pagecache|dma SEED BYTES [key=value..]");
	direct = !strcmp(argv[2], "dma");
	for (i = 5; i < argc; i++)
		if (strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &cache.rate))
			die("unknown option: %s", argv[i]);
	cache.work = work_counter();
	t = load(argv[2], seed, bytes);
	if (t.bad)
		die("the disk does not hold what it must: %" PRIu64 " pages are wrong", t.bad);
	answer_work(argv[2], &t, 0, &server, since);
	last = now();
	for (;;) {
		struct pollfd in = { STDIN_FILENO, POLLIN, 0 };

		if (poll(&in, 1, cache.running ? 5 : -1) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (in.revents && !serve(&server))
			return 0;
		if (cache.running && direct)
			read_pieces_due(&last);
		else if (cache.running)
			read_due(seed, &last);
	}
}

WORKLOAD(pagecache, run);
WORKLOAD(dma, run);
