// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that is written while the guest is migrated.
 *
 *   churn       fills BYTES, then writes and frees extents, rate= pages a second
 *               (default 4000), until stop
 *   rewrite     as churn, but it frees nothing: it writes to the same pages
 */
#define _GNU_SOURCE
#include <poll.h>

#include "frames.h"
#include "serve.h"
#include "watch.h"
#include "workload.h"

static struct region region;

static struct {
	uint64_t rate;
	volatile uint64_t *work;	/* pages, for whoever measures */
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
	if (churn.work)
		*churn.work += step.end - step.start;
	return step.end - step.start;
}

static void churn_due(struct region *r, double *last)
{
	int64_t due = work_due(churn.rate, last);

	while (due > 0 && server.steps < FREED - 1)
		due -= churn_once(r);
}

static int run(int argc, char **argv)
{
	uint64_t seed, bytes, page;
	struct tally t = { 0 };
	double since = now(), last;
	int i;

	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load KIND SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if (strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &churn.rate))
			die("unknown option: %s", argv[i]);
	if (bytes >> 46)
		die("that is no size");
	churn.rewrites = !strcmp(argv[2], "rewrite");
	churn.running = churn.rate != 0;
	if (churn.running && bytes < PAGE_BYTES)
		die("churn needs memory to churn");
	if (churn.running)
		churn.work = work_counter();
	demand(bytes);
	/* Huge pages would hide from the allocator what is freed by the page. */
	region_map(&region, seed, bytes, 0);
	for (page = 0; page < region.pages; page++)
		write_owned(&region, page, &t);
	answer_work(argv[2], &t, 0, &server, since);
	last = now();
	for (;;) {
		struct pollfd in = { STDIN_FILENO, POLLIN, 0 };

		if (poll(&in, 1, churn.running ? 5 : -1) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (in.revents && !serve(&server))
			return 0;
		if (churn.running)
			churn_due(&region, &last);
	}
}

WORKLOAD(churn, run);
WORKLOAD(rewrite, run);
