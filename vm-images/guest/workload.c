// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory with known contents, for a guest that is about to be migrated.
 *
 * Built of this file and all in workloads/; installs as /bin/workload.
 *
 *   workload load KIND SEED BYTES [key=value..]   owns memory until it is killed
 *   workload vectors SEED PAGE GENERATION         prints the formula, for tests
 *
 * Standard output carries one JSON object a line.  `load` prints one when the
 * memory is loaded; after that it answers each line on standard input (verify,
 * stop, frames PATH) with one.  "error ..." is the answer to what cannot be done.
 * End of input ends the program.
 *
 * Kinds are in workloads/; see workload.h.  "Owned" pages are those that verify
 * checks; page N is the Nth of the workload's own memory, not a page frame.  BYTES
 * and keep= count bytes, rounded down to pages.
 */
#define _GNU_SOURCE
#include "region.h"
#include "workload.h"

/* Made by the linker around the entries of workload.h; weak: there may be none. */
extern const struct workload *const __start_workloads[] __attribute__((weak));
extern const struct workload *const __stop_workloads[] __attribute__((weak));

static int do_load(int argc, char **argv)
{
	const struct workload *const *entry;

	for (entry = __start_workloads; entry < __stop_workloads; entry++)
		if (!strcmp(argv[2], (*entry)->kind))
			return (*entry)->run(argc, argv);
	die("unknown workload: %s (the image has no such workload)", argv[2]);
}

static int do_vectors(int argc, char **argv)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t v[3], sum, k;
	struct json *j;
	int i;

	if (argc != 5)
		die("expected: vectors SEED PAGE GENERATION");
	for (i = 0; i < 3; i++)
		if (parse_u64(argv[2 + i], &v[i]))
			die("not a number: %s", argv[2 + i]);
	sum = page_fill(words, page_key(v[0], v[1], v[2]));
	j = answer_begin();
	json_hex(j, "first", words[0]);
	json_hex(j, "last", words[PAGE_WORDS - 1]);
	json_hex(j, "sum", sum);
	json_hex(j, "weighted", page_weight(v[1], sum));
	json_list(j, "steps");
	for (k = 1; k <= 64; k++) {
		struct churn_step s = churn_step(v[0], k, 1000);

		json_list(j, NULL);
		json_number(j, NULL, s.write);
		json_number(j, NULL, s.start);
		json_number(j, NULL, s.end);
		json_end(j);
	}
	json_end(j);
	answer_end(j);
	return 0;
}

int main(int argc, char **argv)
{
	volunteer_for_oom();
	if (argc > 2 && !strcmp(argv[1], "load"))
		return do_load(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "vectors"))
		return do_vectors(argc, argv);
	die("expected load KIND SEED BYTES [key=value..], or vectors");
}
