// SPDX-License-Identifier: GPL-2.0-or-later
/* Which pages the kernel gets back, where its own are larger than those of the formula. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/check.h"

static long kernels_page = 65536;
static uintptr_t begins, given[8][2];
static int count;

/* Record the call, in pages of the formula. */
static int record(void *at, size_t bytes, int advice)
{
	if (advice != MADV_DONTNEED)
		return 0;
	CHECK(count < 8);
	given[count][0] = ((uintptr_t)at - begins) / 4096;
	given[count++][1] = bytes / 4096;
	return madvise(at, bytes, advice);
}

#define sysconf(name) kernels_page
#define madvise record
#include "../region.c"
#undef madvise

static void check_given(uintptr_t first, uintptr_t pages)
{
	CHECK(count == 1);
	CHECK(given[0][0] == first && given[0][1] == pages);
	count = 0;
}

int main(void)
{
	struct region r = { 0 };
	struct tally t = { 0 };
	uint64_t page;

	/* Four pages of the kernel's, and a part of one more. */
	region_load(&r, 9, 70 * PAGE_BYTES, 0, &t);
	begins = (uintptr_t)r.base;
	CHECK(t.pages == 70);
	for (page = 1; page < 70; page += 2)
		free_pages(&r, page, page + 1);
	/* Each has something that is owned. */
	CHECK(!count);
	t = check_all(&r);
	CHECK(t.pages == 35 && !t.bad);
	/* The second: its last page goes last. */
	for (page = 16; page < 30; page += 2)
		free_pages(&r, page, page + 1);
	CHECK(!count);
	free_pages(&r, 30, 31);
	check_given(16, 16);
	CHECK(!*page_at(&r, 16) && *page_at(&r, 14));
	/* An extent: what is whole in it, and not the rest. */
	free_pages(&r, 8, 58);
	check_given(16, 32);
	free_pages(&r, 58, 70);
	check_given(48, 22);
	t = check_all(&r);
	CHECK(t.pages == 4 && !t.bad);
	free_pages(&r, 0, 8);
	check_given(0, 16);
	munmap(r.base, 70 * PAGE_BYTES);
	return 0;
}
