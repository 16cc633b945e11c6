// SPDX-License-Identifier: GPL-2.0-or-later
/* What a page must hold: fixed words, and what a check says of a page that is wrong in one. */
#include "formula.h"
#include "patterns.h"
#include "tests/check.h"

static void fixed_words(void)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t key = page_key(7, 3, 1), sum = page_fill(words, key), again;

	/* The same as in tests/unit/test_formula.py. */
	CHECK(words[0] == 0x8384729860180e15ULL && words[511] == 0xf9e306c6f37c7518ULL);
	CHECK(page_word(key, 511) == words[511]);
	CHECK(page_check(words, key, &again) == PAGE_WORDS && again == sum);
}

static void one_bit_is_found(void)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t key = page_key(1, 2, 3), sum;
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++) {
		page_fill(words, key);
		words[i] ^= 1ULL << i % 64;
		CHECK(page_check(words, key, &sum) == i);
	}
}

static void steps_stay_inside(void)
{
	uint64_t k, pages;

	for (pages = 1; pages < 600; pages += 37)
		for (k = 1; k < 500; k++) {
			struct churn_step s = churn_step(k * 31, k, pages);

			CHECK(s.start < s.end && s.end <= pages);
		}
}

/* A write at a time, and the whole at once, come to the same; nothing else is touched. */
static void patterns_agree(void)
{
	enum { PAGES = 16, WRITES = 40 };
	uint64_t *memory = aligned_alloc(PAGE_BYTES, PAGES * PAGE_BYTES);
	uint64_t expected[PAGE_WORDS], page, g;

	for (page = 0; page < PAGES; page++)
		page_fill(memory + page * PAGE_WORDS, pattern_base(5, page, 0));
	for (g = 1; g <= WRITES; g++)
		for (page = 0; page < PAGES; page++)
			pattern_write(5, (uint8_t *)(memory + page * PAGE_WORDS), page, g, page == PAGES - 1);
	for (page = 0; page < PAGES; page++) {
		pattern_content(5, expected, page, WRITES, page ? WRITES : 0);
		CHECK(!memcmp(memory + page * PAGE_WORDS, expected, PAGE_BYTES));
	}
	free(memory);
}

int main(void)
{
	fixed_words();
	one_bit_is_found();
	steps_stay_inside();
	patterns_agree();
	return 0;
}
