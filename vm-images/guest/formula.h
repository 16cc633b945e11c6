/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a page of the guest must hold.
 *
 * Word i of page N in generation G under seed S is a pure function, so the host
 * computes what the guest must find without ever having seen it: nothing that a
 * broken migration does to the guest can also change the expectation.  The same
 * arithmetic stands in harness/memory/formula.py; a unit test compiles this file
 * and compares the two.
 *
 * All arithmetic is modulo 2^64.
 */
#ifndef FREEPAGE_FORMULA_H
#define FREEPAGE_FORMULA_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES	4096UL
#define PAGE_WORDS	512

#define GOLDEN		0x9E3779B97F4A7C15ULL
/* Of the disk that pagecache reads: the same for every run, so that it is made once. */
#define DISK_SEED	0x66726565UL

#define GENERATION_MUL	0xC2B2AE3D27D4EB4FULL

/* The finaliser of splitmix64. */
static inline uint64_t mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
	return z ^ (z >> 31);
}

static inline uint64_t page_key(uint64_t seed, uint64_t page, uint64_t generation)
{
	return seed ^ (page * GOLDEN) ^ (generation * GENERATION_MUL);
}

static inline uint64_t page_word(uint64_t key, unsigned int i)
{
	return mix64(key + (i + 1) * GOLDEN);
}

/*
 * The programs are built for size; these loops are where the time of a load
 * and a verify goes, so they are built for speed.
 */
#define HOT __attribute__((optimize("O2"), noinline, unused))

/* Write a page, return the sum of its words. */
static HOT uint64_t page_fill(uint64_t *words, uint64_t key)
{
	uint64_t sum = 0, x = key;
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++) {
		uint64_t word;

		x += GOLDEN;
		word = mix64(x);
		words[i] = word;
		sum += word;
	}
	return sum;
}

/*
 * Compare a page with what it must hold.  Returns the index of the first wrong
 * word, or PAGE_WORDS; *sum is of what is really there.
 */
static HOT unsigned int page_check(const uint64_t *words, uint64_t key, uint64_t *sum)
{
	unsigned int i, first = PAGE_WORDS;
	uint64_t total = 0, x = key;

	for (i = 0; i < PAGE_WORDS; i++) {
		uint64_t word = words[i];

		x += GOLDEN;
		total += word;
		if (word != mix64(x) && first == PAGE_WORDS)
			first = i;
	}
	*sum = total;
	return first;
}

/* What a page adds to the checksum of a whole run. */
static inline uint64_t page_weight(uint64_t page, uint64_t sum)
{
	return sum * (2 * page + 1);
}

/*
 * Step k (from 1) of a churn: a function of the seed and k alone, so that the
 * host can replay it from the number of steps and know every page's generation.
 */
struct churn_step {
	int write;		/* else: free */
	uint64_t start, end;	/* pages, end excluded */
};

static inline struct churn_step churn_step(uint64_t seed, uint64_t k, uint64_t pages)
{
	uint64_t a = mix64(seed + (2 * k) * GOLDEN);
	uint64_t b = mix64(seed + (2 * k + 1) * GOLDEN);
	uint64_t span = ((a >> 3) & 63) ? 32 : 512;
	struct churn_step step;

	step.write = (a & 7) < 5;
	step.start = b % pages;
	step.end = step.start + 1 + (a >> 16) % span;
	if (step.end > pages)
		step.end = pages;
	return step;
}

#endif /* FREEPAGE_FORMULA_H */
