// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page cache that is full and in use, for a guest that is about to be migrated.
 *
 * Build: gcc -Os -static -Wall -Wextra -s -o pagecache pagecache.c   installs as /bin/pagecache
 *
 *   pagecache load pagecache SEED BYTES [rate=PAGES]
 *
 * Speaks as workload does, which execs it.  BYTES of the disk are read through the
 * page cache and stay in it; then pages of it are read again, at random, `rate` a
 * second.  The disk's content is the formula with a seed of its own, so every page
 * that is read is checked, whether it came from memory or was read anew: a page of
 * the cache that a migration broke is wrong, and nobody else would ever notice.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/syscall.h>

#include "serve.h"
#include "watch.h"

#ifndef DISK
#define DISK		"/dev/vda"
#endif
#define MODULE		"/lib/modules/virtio_blk.ko"

static struct {
	int disk;
	uint64_t pages, rate;
	volatile uint64_t *work;
	int running;
} cache = { .rate = 4000, .running = 1 };

static void stop(void);
static struct tally read_all(void);
static struct server server = { .stop = stop, .verify = read_all };

/* The small image has the driver as a file: nobody else needs a disk. */
static void open_disk(void)
{
	int module = open(MODULE, O_RDONLY | O_CLOEXEC);

	if (module >= 0 && syscall(SYS_finit_module, module, "", 0) && errno != EEXIST)
		die("%s: %s", MODULE, strerror(errno));
	if (module >= 0)
		close(module);
	cache.disk = open(DISK, O_RDONLY | O_CLOEXEC);
	if (cache.disk < 0)
		die("%s: %s", DISK, strerror(errno));
}

static void read_page(uint64_t page, struct tally *t)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t key = page_key(DISK_SEED, page, 0), sum;
	unsigned int word;

	if (pread(cache.disk, words, PAGE_BYTES, page * PAGE_BYTES) != (ssize_t)PAGE_BYTES)
		die("reading page %" PRIu64 " of the disk: %s", page, strerror(errno));
	word = page_check(words, key, &sum);
	t->pages++;
	t->checksum += page_weight(page, sum);
	if (word == PAGE_WORDS || t->bad++)
		return;
	t->page = page;
	t->word = word;
	t->expected = page_word(key, word);
	t->actual = words[word];
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

static void stop(void)
{
	cache.running = 0;
}

int main(int argc, char **argv)
{
	uint64_t seed, bytes;
	double since = now(), last;
	struct tally t;
	int i;

	volunteer_for_oom();
	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load pagecache SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if (strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &cache.rate))
			die("unknown option: %s", argv[i]);
	cache.pages = bytes / PAGE_BYTES;
	if (!cache.pages)
		die("there is nothing to read");
	cache.work = work_counter();
	open_disk();
	t = read_all();
	if (t.bad)
		die("the disk does not hold what it must: %" PRIu64 " pages are wrong", t.bad);
	answer_work("pagecache", &t, 0, &server, since);
	last = now();
	for (;;) {
		struct pollfd in = { STDIN_FILENO, POLLIN, 0 };

		if (poll(&in, 1, cache.running ? 5 : -1) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (in.revents && !serve(&server))
			return 0;
		if (cache.running)
			read_due(seed, &last);
	}
}
