/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory whose contents follow the formula, and the answers about it. */
#ifndef FREEPAGE_REGION_H
#define FREEPAGE_REGION_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "answer.h"
#include "formula.h"
#include "words.h"

#define FREED		UINT32_MAX	/* as a generation: this page is not owned */
#define MIB		(1UL << 20)

/* Pages of a region are the formula's (PAGE_BYTES), whatever pages the kernel has. */
struct region {
	uint8_t *base;
	uint64_t seed, pages;
	uint32_t *generation;	/* of each page, or FREED */
};

struct tally {
	uint64_t pages, bad, checksum;
	uint64_t page, word, expected, actual;	/* of the first bad one */
};

/* Bytes of a page of the kernel's. */
uint64_t system_page(void);

static inline uint64_t *page_at(const struct region *r, uint64_t page)
{
	return (uint64_t *)(r->base + page * PAGE_BYTES);
}

/* Memory of our own; `huge`: it may be in huge pages. */
void *map(uint64_t bytes, int huge);
/* What the kernel is told of all that is mapped from now on: "huge", or "mergeable" (for KSM). */
void advise(const char *name);
void region_map(struct region *r, uint64_t seed, uint64_t bytes, int huge);

/*
 * A workload that is too large ends in the OOM killer, in whose log nobody
 * finds the reason.  Refuse it here, with numbers.
 */
void demand(uint64_t bytes);

/*
 * These pages are owned no longer.  The kernel gets those of its own pages back of which
 * nothing is owned any more.
 */
void free_pages(struct region *r, uint64_t start, uint64_t end);

/* Returns the sum of the page's words. */
uint64_t write_page(struct region *r, uint64_t page, uint32_t generation);
/* As it is loaded, in the tally as well. */
void write_owned(struct region *r, uint64_t page, struct tally *t);
/* Map so many bytes, and own all of them. */
void region_load(struct region *r, uint64_t seed, uint64_t bytes, int huge, struct tally *t);

void check_page(const struct region *r, uint64_t page, struct tally *t);
struct tally check_all(const struct region *r);
/* Count one page of which `word` is the first wrong one, or PAGE_WORDS. */
void tally_page(struct tally *t, uint64_t page, unsigned int word, uint64_t expected, uint64_t actual,
		uint64_t sum);

/* Begin the answer about pages: the part that all of them share. */
struct json *answer_tally(const char *kind, const struct tally *t, double since);

#endif /* FREEPAGE_REGION_H */
