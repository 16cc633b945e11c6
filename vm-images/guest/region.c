// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "region.h"

static int advice;	/* of madvise(), for all that is mapped; 0: none */

uint64_t system_page(void)
{
	static uint64_t bytes;

	if (!bytes)
		bytes = sysconf(_SC_PAGESIZE);
	return bytes;
}

void *map(uint64_t bytes, int huge)
{
	void *base;

	if (!bytes)
		return NULL;
	base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		die("mmap of %" PRIu64 " bytes: %s", bytes, strerror(errno));
	if (advice && madvise(base, bytes, advice))
		die("madvise: %s (this kernel cannot)", strerror(errno));
	if (!huge && advice != MADV_HUGEPAGE)
		madvise(base, bytes, MADV_NOHUGEPAGE);
	return base;
}

void advise(const char *name)
{
	if (!strcmp(name, "huge"))
		advice = MADV_HUGEPAGE;
	else if (!strcmp(name, "mergeable"))
		advice = MADV_MERGEABLE;
	else
		die("unknown advice: %s", name);
}

void region_map(struct region *r, uint64_t seed, uint64_t bytes, int huge)
{
	r->seed = seed;
	r->pages = bytes / PAGE_BYTES;
	r->base = map(r->pages * PAGE_BYTES, huge);
	r->generation = map(r->pages * sizeof(*r->generation), huge);
}

void demand(uint64_t bytes)
{
	uint64_t available = meminfo("MemAvailable"), margin = 16 * MIB;

	if (available && bytes + margin > available)
		die("this needs %" PRIu64 " bytes and a margin of %" PRIu64
		    ", the guest has %" PRIu64 " available", bytes, margin, available);
}

/* Is nothing owned of so many pages from there on? */
static int all_freed(const struct region *r, uint64_t page, uint64_t count)
{
	for (; count; page++, count--)
		if (page < r->pages && r->generation[page] != FREED)
			return 0;
	return 1;
}

static void give_back(const struct region *r, uint64_t start, uint64_t end)
{
	if (start < end && madvise(page_at(r, start), (end - start) * PAGE_BYTES, MADV_DONTNEED))
		die("madvise: %s", strerror(errno));
}

void free_pages(struct region *r, uint64_t start, uint64_t end)
{
	uint64_t each = system_page() / PAGE_BYTES, page, from;

	for (page = start; page < end; page++)
		r->generation[page] = FREED;
	/* A region begins with a page of the kernel's, so they lie at multiples of `each`. */
	page = from = start / each * each;
	for (; page < end; page += each)
		if (!all_freed(r, page, each)) {
			give_back(r, from, page);
			from = page + each;
		}
	give_back(r, from, page < r->pages ? page : r->pages);
}

uint64_t write_page(struct region *r, uint64_t page, uint32_t generation)
{
	r->generation[page] = generation;
	return page_fill(page_at(r, page), page_key(r->seed, page, generation));
}

void write_owned(struct region *r, uint64_t page, struct tally *t)
{
	t->checksum += page_weight(page, write_page(r, page, 0));
	t->pages++;
}

void region_load(struct region *r, uint64_t seed, uint64_t bytes, int huge, struct tally *t)
{
	uint64_t page;

	region_map(r, seed, bytes, huge);
	for (page = 0; page < r->pages; page++)
		write_owned(r, page, t);
}

void tally_page(struct tally *t, uint64_t page, unsigned int word, uint64_t expected, uint64_t actual,
		uint64_t sum)
{
	t->pages++;
	t->checksum += page_weight(page, sum);
	if (word == PAGE_WORDS || t->bad++)
		return;
	t->page = page;
	t->word = word;
	t->expected = expected;
	t->actual = actual;
}

void check_page(const struct region *r, uint64_t page, struct tally *t)
{
	uint64_t key = page_key(r->seed, page, r->generation[page]), sum;
	unsigned int word = page_check(page_at(r, page), key, &sum);

	tally_page(t, page, word, page_word(key, word), word < PAGE_WORDS ? page_at(r, page)[word] : 0, sum);
}

struct tally check_all(const struct region *r)
{
	struct tally t = { 0 };
	uint64_t page;

	for (page = 0; page < r->pages; page++)
		if (r->generation[page] != FREED)
			check_page(r, page, &t);
	return t;
}

struct json *answer_tally(const char *kind, const struct tally *t, double since)
{
	struct json *j = answer_begin();

	json_string(j, "kind", kind);
	json_number(j, "pages", t->pages);
	json_number(j, "bad", t->bad);
	json_hex(j, "checksum", t->checksum);
	if (t->bad) {
		json_object(j, "first_bad");
		json_number(j, "page", t->page);
		json_number(j, "word", t->word);
		json_hex(j, "expected", t->expected);
		json_hex(j, "actual", t->actual);
		json_end(j);
	} else {
		json_null(j, "first_bad");
	}
	json_seconds(j, "seconds", now() - since);
	return j;
}
