// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory of which little changes at a time: see patterns.h.
 *
 *   patterns    fills BYTES, then writes to rate= pages a second (default 20000;
 *               0: as fast as it can), until stop
 */
#define _GNU_SOURCE
#include "frames.h"
#include "patterns.h"
#include "serve.h"
#include "work.h"
#include "workload.h"

/* Without a rate: so many pages between two looks at what was asked. */
#define UNPACED		256
/* Of so many writes one looks first at what is there. */
#define CHECKED		64

static struct region region;

static struct {
	uint64_t rate;
	double last;
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
	if (first == PAGE_WORDS)
		tally_page(t, page, first, 0, 0, sum);
	else
		tally_page(t, page, first, expected[first], words[first], sum);
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
	work_done(step.end - step.start);
	return step.end - step.start;
}

static void write_due(const struct pollfd *in, int ready)
{
	int64_t due = patterns.rate ? work_due(patterns.rate, &patterns.last) : UNPACED;

	(void)in, (void)ready;
	while (patterns.running && due > 0)
		due -= patterns_once(&region);
}

static int events(struct pollfd *in, int *timeout)
{
	(void)in;
	*timeout = !patterns.running ? -1 : patterns.rate ? 2 : 0;
	return 0;
}

static uint64_t load(const struct load *load, struct tally *t)
{
	uint64_t page;

	if (load->bytes < PAGE_BYTES)
		die("that is no size");
	patterns.running = 1;
	demand(load->bytes);
	region_map(&region, load->seed, load->bytes, 0);
	for (page = 0; page < region.pages; page++)
		page_fill(page_at(&region, page), pattern_base(load->seed, page, 0));
	*t = verify();
	patterns.last = now();
	return 0;
}

static const struct workload_option options[] = { { "rate", .number = &patterns.rate }, { 0 } };

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = write_due,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(patterns, run);
