// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages that come and go one action at a time, for a script that runs during a migration.
 *
 *   pages SEED COUNT
 *
 * Takes COUNT pages and writes known contents to them, then works off lines on
 * standard input: alloc COUNT, free COUNT (the last ones), write (new contents to
 * all), read.  Each is answered with one JSON object: a tally of all pages that
 * are owned, read back, and the frames of the newest (of them at most 400).
 */
#define _GNU_SOURCE
#include "frames.h"

/* Addresses only; memory comes with the first touch. */
#define MOST_PAGES	(4UL << 18)
#define MOST_FRAMES	400
/* Unlike any generation of the other programs, whose pages these may once have been. */
#define FIRST_GENERATION	0x9A6E0000U

static uint32_t generation = FIRST_GENERATION;

static void report(const struct region *r, const char *what, uint64_t first, double since)
{
	struct tally t = check_all(r);
	struct json *j = answer_tally(what, &t, since);
	int frames = frames_open();
	uint64_t page;

	json_list(j, "frames");
	for (page = first; frames >= 0 && page < r->pages && page < first + MOST_FRAMES; page++)
		json_number(j, NULL, frame_of(frames, page_at(r, page)));
	json_end(j);
	answer_end(j);
	if (frames >= 0)
		close(frames);
}

static void take(struct region *r, uint64_t count)
{
	uint64_t end = r->pages + count;

	if (end > MOST_PAGES)
		die("at most %lu pages", MOST_PAGES);
	while (r->pages < end) {
		write_page(r, r->pages, generation);
		r->pages++;
	}
}

/* The last ones.  Those that share a page of the kernel's with one that stays, it gets later. */
static void give_back(struct region *r, uint64_t count)
{
	uint64_t end = r->pages;

	if (count > end)
		count = end;
	if (count)
		free_pages(r, end - count, end);
	r->pages = end - count;
}

static void obey(struct region *r, char *line)
{
	uint64_t count = 0, page, before = r->pages;
	double since = now();
	char *argument = strchr(line, ' ');

	if (argument) {
		*argument++ = '\0';
		if (parse_u64(argument, &count)) {
			answer("error that is no count");
			return;
		}
	}
	if (!strcmp(line, "alloc")) {
		generation++;
		take(r, count);
		report(r, line, before, since);
	} else if (!strcmp(line, "free")) {
		give_back(r, count);
		report(r, line, 0, since);
	} else if (!strcmp(line, "write")) {
		generation++;
		for (page = 0; page < r->pages; page++)
			write_page(r, page, generation);
		report(r, line, 0, since);
	} else if (!strcmp(line, "read")) {
		report(r, line, 0, since);
	} else {
		answer("error unknown command");
	}
}

int main(int argc, char **argv)
{
	struct region r = { 0 };
	uint64_t seed, count;
	double since = now();
	char line[256];
	ssize_t n;

	volunteer_for_oom();
	if (argc != 3 || parse_u64(argv[1], &seed) || parse_u64(argv[2], &count))
		die("expected: pages SEED COUNT");
	/* By the page: huge pages would hide which of them is where. */
	region_map(&r, seed, MOST_PAGES * PAGE_BYTES, 0);
	r.pages = 0;
	take(&r, count);
	report(&r, "alloc", 0, since);
	while ((n = read(STDIN_FILENO, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
		obey(&r, line);
	}
	return 0;
}
