// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory of which little changes at a time: see patterns.h.
 *
 *   patterns    fills BYTES, then writes to rate= pages a second (default 20000;
 *               0: as fast as it can), until stop
 */
#define _GNU_SOURCE
#include <poll.h>

#include "frames.h"
#include "patterns.h"
#include "serve.h"
#include "watch.h"
#include "workload.h"

/* Without a rate: so many pages between two looks at what was asked. */
#define UNPACED		256
/* Of so many writes one looks first at what is there. */
#define CHECKED		64

static struct region region;

static struct {
	uint64_t rate;
	volatile uint64_t *work;	/* pages, for whoever measures */
	int running;
} patterns = { .rate = 20000 };

static void stop(void)
{
	patterns.running = 0;
}

static void check(const struct region *r, uint64_t page, struct tally *t)
{
	uint64_t expected[PAGE_WORDS], sum = 0;
	const uint64_t *words = page_at(r, page);
	unsigned int i, first = PAGE_WORDS;

	pattern_content(r->seed, expected, page, r->generation[page],
			page ? r->generation[page - 1] : 0);
	for (i = 0; i < PAGE_WORDS; i++) {
		sum += words[i];
		if (words[i] != expected[i] && first == PAGE_WORDS)
			first = i;
	}
	t->pages++;
	t->checksum += page_weight(page, sum);
	if (first == PAGE_WORDS || t->bad++)
		return;
	t->page = page;
	t->word = first;
	t->expected = expected[first];
	t->actual = words[first];
}

static struct tally verify(void)
{
	struct tally t = { 0 };
	uint64_t page;

	for (page = 0; page < region.pages; page++)
		check(&region, page, &t);
	return t;
}

static int other(const char *line)
{
	return answer_frames(&region, line);
}

static struct server server = { .stop = stop, .verify = verify, .other = other };

/* One step: a run of pages, so that neighbours are written to one after the other. */
static uint64_t patterns_once(struct region *r)
{
	struct churn_step step = churn_step(r->seed, ++server.steps, r->pages);
	struct tally t = { 0 };
	uint64_t page;

	if (server.steps % CHECKED == 0) {
		check(r, step.start, &t);
		server.checked++;
		server.bad += t.bad;
	}
	for (page = step.start; page < step.end; page++)
		pattern_write(r->seed, (uint8_t *)page_at(r, page), page, ++r->generation[page],
			      page == r->pages - 1);
	if (patterns.work)
		*patterns.work += step.end - step.start;
	return step.end - step.start;
}

static int run(int argc, char **argv)
{
	uint64_t seed, bytes, page;
	double since = now(), last;
	struct tally t;
	int i;

	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load KIND SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if (strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &patterns.rate))
			die("unknown option: %s", argv[i]);
	if (bytes >> 46 || bytes < PAGE_BYTES)
		die("that is no size");
	patterns.running = 1;
	patterns.work = work_counter();
	demand(bytes);
	region_map(&region, seed, bytes, 0);
	for (page = 0; page < region.pages; page++)
		page_fill(page_at(&region, page), pattern_base(seed, page, 0));
	t = verify();
	answer_work(argv[2], &t, 0, &server, since);
	last = now();
	for (;;) {
		struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
		int64_t due = UNPACED;

		if (poll(&in, 1, !patterns.running ? -1 : patterns.rate ? 2 : 0) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (in.revents && !serve(&server))
			return 0;
		if (patterns.running && patterns.rate)
			due = work_due(patterns.rate, &last);
		while (patterns.running && due > 0)
			due -= patterns_once(&region);
	}
}

WORKLOAD(patterns, run);
