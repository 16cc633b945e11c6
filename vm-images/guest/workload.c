// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory with known contents, for a guest that is about to be migrated.
 *
 * Build: gcc -Os -static -Wall -Wextra -o workload workload.c    installs as /bin/workload
 *
 *   workload load KIND SEED BYTES [key=value..]   owns memory until it is killed
 *   workload vectors SEED PAGE GENERATION         prints the formula, for tests
 *
 * Standard output carries one JSON object a line.  `load` prints one when the
 * memory is loaded; after that it answers each line on standard input (verify,
 * stop, frames PATH) with one.  "error ..." is the answer to what cannot be done.
 * End of input ends the program.
 *
 * Kinds.  "Owned" pages are those that verify checks; page N is the Nth of the
 * workload's own memory, not a page frame.
 *   idle        owns keep= bytes (default none)
 *   freed       fills BYTES with noise and frees it; owns keep= bytes (16 MiB)
 *   fragmented  fills BYTES, frees every odd page, owns every even one
 *   churn       fills BYTES, then writes and frees extents, rate= pages a second
 *               (default 4000), until stop
 *   rewrite     the same, but it frees nothing: it writes to the same pages
 * keep= and BYTES count bytes, rounded down to pages.
 */
#define _GNU_SOURCE
#include <poll.h>

#include "serve.h"
#include "watch.h"

/* Noise differs from what is kept: a kept page full of noise must not pass. */
#define NOISE_GENERATION	1

static struct region region;

static struct {
	uint64_t rate;
	volatile uint64_t *work;	/* pages, for whoever measures */
	int running, rewrites;
} churn = { .rate = 4000 };

static void stop(void);
static struct tally verify(void);
static int other(const char *line);
static struct server server = { .stop = stop, .verify = verify, .other = other };

/*
 * A workload that is too large ends in the OOM killer, in whose log nobody
 * finds the reason.  Refuse it here, with numbers.
 */
static void demand(uint64_t bytes)
{
	uint64_t available = meminfo("MemAvailable"), margin = 16 * MIB;

	if (available && bytes + margin > available)
		die("this needs %" PRIu64 " bytes and a margin of %" PRIu64
		    ", the guest has %" PRIu64 " available", bytes, margin, available);
}

static void free_pages(struct region *r, uint64_t start, uint64_t end)
{
	if (madvise(page_at(r, start), (end - start) * PAGE_BYTES, MADV_DONTNEED))
		die("madvise: %s", strerror(errno));
	while (start < end)
		r->generation[start++] = FREED;
}

/* Returns the pages that the load wrote and gave back. */
static uint64_t load(struct region *r, struct tally *t, const char *kind, uint64_t seed,
		     uint64_t bytes, uint64_t keep)
{
	uint64_t page, pages = bytes / PAGE_BYTES;
	uint8_t *noise;

	if (!strcmp(kind, "idle") || !strcmp(kind, "freed")) {
		demand(keep + (*kind == 'f' ? bytes : 0));
		region_map(r, seed, keep, 1);
		for (page = 0; page < r->pages; page++)
			write_owned(r, page, t);
		if (*kind == 'i')
			return 0;
		noise = map(pages * PAGE_BYTES, 1);
		for (page = 0; page < pages; page++)
			page_fill((uint64_t *)(noise + page * PAGE_BYTES),
				  page_key(seed, page, NOISE_GENERATION));
		if (pages)
			munmap(noise, pages * PAGE_BYTES);
		return pages;
	}
	demand(bytes);
	/* Huge pages would hide from the allocator what is freed by the page. */
	region_map(r, seed, bytes, 0);
	for (page = 0; page < r->pages; page++)
		if (*kind == 'f' && page % 2)
			write_page(r, page, 0);
		else
			write_owned(r, page, t);
	if (*kind == 'c' || *kind == 'r')
		return 0;
	for (page = 1; page < r->pages; page += 2)
		free_pages(r, page, page + 1);
	return r->pages / 2;
}

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

/*
 * {page, frame} pairs of the owned pages, as little endian 64 bit words, for
 * whoever fetches the file.  The frame needs CAP_SYS_ADMIN; it is 0 without.
 */
static void frames(const struct region *r, const char *path)
{
	int map_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	FILE *out = fopen(path, "we");
	uint64_t page, count = 0;

	if (map_fd < 0 || !out) {
		answer("error %s: %s\n", out ? "/proc/self/pagemap" : path, strerror(errno));
		goto out;
	}
	for (page = 0; page < r->pages; page++) {
		uint64_t entry = 0, pair[2];

		if (r->generation[page] == FREED)
			continue;
		if (pread(map_fd, &entry, 8, (uintptr_t)page_at(r, page) / PAGE_BYTES * 8) != 8)
			entry = 0;
		pair[0] = page;
		/* Bit 63: present.  Bits 0 to 54: the frame. */
		pair[1] = entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
		count += fwrite(pair, sizeof(pair), 1, out);
	}
	if (fflush(out))
		answer("error %s: %s\n", path, strerror(errno));
	else
		answer("{\"path\":\"%s\",\"pages\":%" PRIu64 "}\n", path, count);
out:
	if (map_fd >= 0)
		close(map_fd);
	if (out)
		fclose(out);
}

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
	if (strncmp(line, "frames /", 8))
		return 0;
	frames(&region, line + 7);
	return 1;
}

static int do_load(int argc, char **argv)
{
	uint64_t seed, bytes, keep, freed;
	struct tally t = { 0 };
	double since = now(), last;
	const char *kind;
	int i;

	if (argc < 5 || parse_u64(argv[3], &seed) || parse_u64(argv[4], &bytes))
		die("expected: load KIND SEED BYTES [key=value..]");
	kind = argv[2];
	if (strcmp(kind, "idle") && strcmp(kind, "freed") && strcmp(kind, "fragmented") &&
	    strcmp(kind, "churn") && strcmp(kind, "rewrite"))
		die("unknown workload: %s", kind);
	keep = *kind == 'i' ? 0 : 16 * MIB;
	for (i = 5; i < argc; i++)
		if ((strncmp(argv[i], "keep=", 5) || parse_u64(argv[i] + 5, &keep)) &&
		    (strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &churn.rate)))
			die("unknown option: %s", argv[i]);
	if ((bytes | keep) >> 46)
		die("that is no size");
	churn.rewrites = !strcmp(kind, "rewrite");
	churn.running = (churn.rewrites || !strcmp(kind, "churn")) && churn.rate;
	if (churn.running && bytes < PAGE_BYTES)
		die("churn needs memory to churn");

	if (churn.running)
		churn.work = work_counter();
	freed = load(&region, &t, kind, seed, bytes, keep);
	answer_work(kind, &t, freed, &server, since);
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

static int do_vectors(int argc, char **argv)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t v[3], sum, k;
	int i;

	if (argc != 5)
		die("expected: vectors SEED PAGE GENERATION");
	for (i = 0; i < 3; i++)
		if (parse_u64(argv[2 + i], &v[i]))
			die("not a number: %s", argv[2 + i]);
	sum = page_fill(words, page_key(v[0], v[1], v[2]));
	answer("{\"first\":\"%016" PRIx64 "\",\"last\":\"%016" PRIx64 "\",\"sum\":\"%016" PRIx64
	       "\",\"weighted\":\"%016" PRIx64 "\",\"steps\":[", words[0], words[PAGE_WORDS - 1],
	       sum, page_weight(v[1], sum));
	for (k = 1; k <= 64; k++) {
		struct churn_step s = churn_step(v[0], k, 1000);

		answer("%s[%d,%" PRIu64 ",%" PRIu64 "]", k > 1 ? "," : "", s.write, s.start, s.end);
	}
	answer("]}\n");
	return 0;
}

/* Kinds that are programs of their own, beside this one, speak in its place. */
static void other_program(char **argv)
{
	static const char *const kinds[][2] = {
		{ "compile", "compile" }, { "database", "database" },
		{ "pagecache", "pagecache" }, { "dma", "pagecache" },
	};
	char path[256];
	ssize_t n;
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(argv[2], kinds[i][0]))
			continue;
		n = readlink("/proc/self/exe", path, sizeof(path) - 16);
		while (n > 0 && path[n - 1] != '/')
			n--;
		snprintf(path + (n > 0 ? n : 0), 16, "%s", kinds[i][1]);
		execv(path, argv);
		die("%s: %s (the image has no such workload)", path, strerror(errno));
	}
}

int main(int argc, char **argv)
{
	volunteer_for_oom();
	if (argc > 2 && !strcmp(argv[1], "load"))
		other_program(argv);
	if (argc > 1 && !strcmp(argv[1], "load"))
		return do_load(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "vectors"))
		return do_vectors(argc, argv);
	die("expected load or vectors");
}
