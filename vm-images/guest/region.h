/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory whose contents follow the formula, and the answers about it. */
#ifndef FREEPAGE_REGION_H
#define FREEPAGE_REGION_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#include "formula.h"
#include "meminfo.h"

#define FREED		UINT32_MAX	/* as a generation: this page is not owned */
#define MIB		(1UL << 20)

struct region {
	uint8_t *base;
	uint64_t seed, pages;
	uint32_t *generation;	/* of each page, or FREED */
};

struct tally {
	uint64_t pages, bad, checksum;
	uint64_t page, word, expected, actual;	/* of the first bad one */
};

static void answer(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vdprintf(STDOUT_FILENO, format, args);
	va_end(args);
}

#define die(...) do { \
		answer("error " __VA_ARGS__); \
		answer("\n"); \
		exit(1); \
	} while (0)

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline uint64_t *page_at(const struct region *r, uint64_t page)
{
	return (uint64_t *)(r->base + page * PAGE_BYTES);
}

static inline void *map(uint64_t bytes, int huge)
{
	void *base;

	if (!bytes)
		return NULL;
	base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		die("mmap of %" PRIu64 " bytes: %s", bytes, strerror(errno));
	if (!huge)
		madvise(base, bytes, MADV_NOHUGEPAGE);
	return base;
}

static inline void region_map(struct region *r, uint64_t seed, uint64_t bytes, int huge)
{
	r->seed = seed;
	r->pages = bytes / PAGE_BYTES;
	r->base = map(r->pages * PAGE_BYTES, huge);
	r->generation = map(r->pages * sizeof(*r->generation), huge);
}

/*
 * A workload that is too large ends in the OOM killer, in whose log nobody
 * finds the reason.  Refuse it here, with numbers.
 */
static inline void demand(uint64_t bytes)
{
	uint64_t available = meminfo("MemAvailable"), margin = 16 * MIB;

	if (available && bytes + margin > available)
		die("this needs %" PRIu64 " bytes and a margin of %" PRIu64
		    ", the guest has %" PRIu64 " available", bytes, margin, available);
}

static inline void free_pages(struct region *r, uint64_t start, uint64_t end)
{
	if (madvise(page_at(r, start), (end - start) * PAGE_BYTES, MADV_DONTNEED))
		die("madvise: %s", strerror(errno));
	while (start < end)
		r->generation[start++] = FREED;
}

/* Returns the sum of the page's words. */
static inline uint64_t write_page(struct region *r, uint64_t page, uint32_t generation)
{
	r->generation[page] = generation;
	return page_fill(page_at(r, page), page_key(r->seed, page, generation));
}

/* As it is loaded, in the tally as well. */
static inline void write_owned(struct region *r, uint64_t page, struct tally *t)
{
	t->checksum += page_weight(page, write_page(r, page, 0));
	t->pages++;
}

static inline void check_page(const struct region *r, uint64_t page, struct tally *t)
{
	uint64_t key = page_key(r->seed, page, r->generation[page]), sum;
	unsigned int word = page_check(page_at(r, page), key, &sum);

	t->pages++;
	t->checksum += page_weight(page, sum);
	if (word == PAGE_WORDS || t->bad++)
		return;
	t->page = page;
	t->word = word;
	t->expected = page_word(key, word);
	t->actual = page_at(r, page)[word];
}

static inline struct tally check_all(const struct region *r)
{
	struct tally t = { 0 };
	uint64_t page;

	for (page = 0; page < r->pages; page++)
		if (r->generation[page] != FREED)
			check_page(r, page, &t);
	return t;
}

/* The part that all answers about pages share, without the closing brace. */
static inline void answer_tally(const char *kind, const struct tally *t, double since)
{
	char first[160] = "null";

	if (t->bad)
		snprintf(first, sizeof(first), "{\"page\":%" PRIu64 ",\"word\":%" PRIu64
			 ",\"expected\":\"%016" PRIx64 "\",\"actual\":\"%016" PRIx64 "\"}",
			 t->page, t->word, t->expected, t->actual);
	answer("{\"kind\":\"%s\",\"pages\":%" PRIu64 ",\"bad\":%" PRIu64
	       ",\"checksum\":\"%016" PRIx64 "\",\"first_bad\":%s,\"seconds\":%.3f",
	       kind, t->pages, t->bad, t->checksum, first, now() - since);
}

/* If somebody must go, then these, and never the agent. */
static inline void volunteer_for_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "1000", 4) != 4)
		errno = 0;
	close(fd);
}

#endif /* FREEPAGE_REGION_H */
