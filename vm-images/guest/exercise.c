// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Take nearly all free memory once, and look at every page of it.
 *
 *   exercise SEED [limit=BYTES]
 *
 * Prints one JSON object, or "error ...".
 */
#define _GNU_SOURCE
#include "region.h"

/* Anything but the generations of a workload, whose pages these may once have been. */
#define EXERCISE_GENERATION	0xE8E8E8E8U

/* Is a fresh page what the kernel promises: zeros? */
static HOT int all_zero(const uint64_t *words)
{
	uint64_t any = 0;
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++)
		any |= words[i];
	return !any;
}

/*
 * Take nearly all free memory, look whether it came as zeros, fill it, read it
 * back.  A page that the migration got wrong and that nobody had owned shows
 * here: by its contents, or by what the kernel says when it trips over it.
 */
int main(int argc, char **argv)
{
	uint64_t seed, limit = UINT64_MAX, margin, taken = 0, chunk = 4 * MIB, nonzero = 0, page;
	uint64_t reserve = 0;
	struct region r = { 0 };
	struct json *j;
	struct tally t;
	double since = now();

	volunteer_for_oom();
	if (argc < 2 || argc > 3 || parse_u64(argv[1], &seed) ||
	    (argc == 3 && (strncmp(argv[2], "limit=", 6) || parse_u64(argv[2] + 6, &limit))))
		die("expected: exercise SEED [limit=BYTES]");
	margin = meminfo("MemTotal") / 32;
	margin = margin < 32 * MIB ? 32 * MIB : margin;
	reserve = meminfo("MemAvailable") / chunk * chunk;
	if (reserve > limit)
		reserve = limit / PAGE_BYTES * PAGE_BYTES;
	if (!reserve)
		die("no memory to exercise");
	/* Reserves addresses only: memory comes with the first touch. */
	region_map(&r, seed, reserve, 1);
	while (taken < reserve) {
		uint64_t end = taken + chunk < reserve ? taken + chunk : reserve;

		if (meminfo("MemAvailable") < margin + chunk)
			break;
		for (page = taken / PAGE_BYTES; page < end / PAGE_BYTES; page++) {
			/*
			 * A write, that changes nothing: a page that is only
			 * read is the kernel's one page of zeros.
			 */
			__atomic_fetch_or(page_at(&r, page), 0, __ATOMIC_RELAXED);
			nonzero += !all_zero(page_at(&r, page));
			write_page(&r, page, EXERCISE_GENERATION);
		}
		taken = end;
	}
	r.pages = taken / PAGE_BYTES;
	t = check_all(&r);
	j = answer_tally("exercise", &t, since);
	json_number(j, "nonzero", nonzero);
	answer_end(j);
	return 0;
}
