// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that is written while the guest is migrated.
 *
 *   churn       fills BYTES, then writes and frees extents, rate= pages a second
 *               (default 4000), until stop
 *   rewrite     as churn, but it frees nothing: it writes to the same pages
 */
#define _GNU_SOURCE
#include "frames.h"
#include "serve.h"
#include "work.h"
#include "workload.h"

static struct region region;

static struct {
	uint64_t rate;
	double last;
	int running, rewrites;
} churn = { .rate = 4000 };

static void stop(void)
{
	churn.running = 0;
}

static struct tally verify(void)
{
	return check_all(&region);
}

static int other(const char *line)
{
	return answer_frames(&region, line);
}

static struct server server = { .stop = stop, .verify = verify, .other = other };

/*
 * One step of the churn.  Before an owned extent changes, its first page is
 * checked: what a migration broke under way is seen even where the churn would
 * have covered it up by the time that anybody asks.
 */
static uint64_t churn_once(struct region *r)
{
	struct churn_step step = churn_step(r->seed, ++server.steps, r->pages);
	struct tally t = { 0 };
	uint64_t page;

	if (r->generation[step.start] != FREED) {
		check_page(r, step.start, &t);
		server.checked++;
		server.bad += t.bad;
	}
	if (step.write || churn.rewrites)
		for (page = step.start; page < step.end; page++)
			write_page(r, page, server.steps);
	else
		free_pages(r, step.start, step.end);
	work_done(step.end - step.start);
	return step.end - step.start;
}

static void churn_due(const struct pollfd *in, int ready)
{
	int64_t due = churn.running ? work_due(churn.rate, &churn.last) : 0;

	(void)in, (void)ready;
	while (due > 0 && server.steps < FREED - 1)
		due -= churn_once(&region);
}

static int events(struct pollfd *in, int *timeout)
{
	(void)in;
	*timeout = churn.running ? 5 : -1;
	return 0;
}

static uint64_t load(const struct load *load, struct tally *t)
{
	churn.rewrites = !strcmp(load->kind, "rewrite");
	churn.running = churn.rate != 0;
	if (churn.running && load->bytes < PAGE_BYTES)
		die("churn needs memory to churn");
	demand(load->bytes);
	/* Huge pages would hide from the allocator what is freed by the page. */
	region_load(&region, load->seed, load->bytes, 0, t);
	churn.last = now();
	return 0;
}

static const struct workload_option options[] = { { "rate", .number = &churn.rate }, { 0 } };

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = churn_due,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(churn, run);
WORKLOAD(rewrite, run);
