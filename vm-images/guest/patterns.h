/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that change in ways of their own, one of eight by the page's number.
 *
 * What page N holds after G writes is a pure function, as in formula.h; the same
 * stands in harness/memory/patterns.py, and a unit test compares the two.  A write
 * changes as little as its way says, and nothing else of the page.
 */
#ifndef FREEPAGE_PATTERNS_H
#define FREEPAGE_PATTERNS_H

#include <string.h>

#include "formula.h"

enum pattern {
	ONE_BIT,		/* one bit of the page differs from how it began */
	TOGGLED,		/* a word is A, B, A, B, ... */
	SAME,			/* what is there is written again; all such pages are equal */
	ZERO_AND_BACK,		/* zeros, noise, zeros, noise, ... */
	EDGES,			/* the first and the last byte */
	FEW_WORDS,		/* four words */
	NOISE_OR_WORDS,		/* the whole page; then, three times, one word more */
	ACROSS,			/* eight bytes, half of them in the next page, which is ONE_BIT */
	PATTERNS
};

#define ONE_BIT_WORD	7
#define TOGGLED_WORD	100
#define FEW_FIRST	200
#define FEW_COUNT	4
#define NOISE_EVERY	4
#define NOISE_STRIDE	37

static inline enum pattern pattern_of(uint64_t page)
{
	return page % PATTERNS;
}

/* Of the noise that a page began with, or was last filled with. */
static inline uint64_t pattern_base(uint64_t seed, uint64_t page, uint64_t g)
{
	if (pattern_of(page) == SAME)
		return page_key(seed, SAME, 0);
	return page_key(seed, page, pattern_of(page) == NOISE_OR_WORDS ? g - g % NOISE_EVERY : 0);
}

static inline uint64_t across(uint64_t seed, uint64_t page, uint64_t g)
{
	return page_word(page_key(seed, page, g), 0);
}

/*
 * Write number g, from 1, to a page.  Stores are volatile: one that changes nothing
 * has to be made all the same.  `last`: there is no page behind it.
 */
static inline void pattern_write(uint64_t seed, uint8_t *at, uint64_t page, uint64_t g, int last)
{
	volatile uint64_t *words = (uint64_t *)at;
	uint64_t base = pattern_base(seed, page, g), value;
	volatile uint8_t *bytes = at;
	unsigned int i;

	switch (pattern_of(page)) {
	case ONE_BIT:
		words[ONE_BIT_WORD] = page_word(base, ONE_BIT_WORD) ^ 1ULL << g % 64;
		break;
	case TOGGLED:
		words[TOGGLED_WORD] = page_word(base, TOGGLED_WORD) ^ -(g & 1);
		break;
	case SAME:
		words[g % PAGE_WORDS] = page_word(base, g % PAGE_WORDS);
		break;
	case ZERO_AND_BACK:
		if (g & 1)
			memset(at, 0, PAGE_BYTES);
		else
			page_fill((uint64_t *)at, base);
		break;
	case EDGES:
		bytes[0] = g;
		bytes[PAGE_BYTES - 1] = ~g;
		break;
	case FEW_WORDS:
		for (i = FEW_FIRST; i < FEW_FIRST + FEW_COUNT; i++)
			words[i] = page_word(page_key(seed, page, g), i);
		break;
	case NOISE_OR_WORDS:
		if (g % NOISE_EVERY == 0)
			page_fill((uint64_t *)at, base);
		else
			words[g % NOISE_EVERY * NOISE_STRIDE] =
				page_word(page_key(seed, page, g), g % NOISE_EVERY * NOISE_STRIDE);
		break;
	case ACROSS:
		value = across(seed, page, g);
		memcpy(at + PAGE_BYTES - 4, &value, last ? 4 : 8);
		break;
	case PATTERNS:
		break;
	}
}

/*
 * What a page holds after g writes.  `before`: how often the page in front of it was
 * written to, which may reach into it.
 */
static inline void pattern_content(uint64_t seed, uint64_t *words, uint64_t page, uint64_t g,
				   uint64_t before)
{
	uint8_t *bytes = (uint8_t *)words;
	uint64_t value, i;

	page_fill(words, pattern_base(seed, page, g));
	if (pattern_of(page) == ONE_BIT && page && before) {
		value = across(seed, page - 1, before);
		memcpy(bytes, (uint8_t *)&value + 4, 4);
	}
	if (!g)
		return;
	if (pattern_of(page) == NOISE_OR_WORDS) {
		for (i = g - g % NOISE_EVERY + 1; i <= g; i++)
			pattern_write(seed, bytes, page, i, 1);
	} else {
		pattern_write(seed, bytes, page, g, 1);
	}
}

#endif /* FREEPAGE_PATTERNS_H */
