/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a workload makes itself known.  Each file in workloads/ is linked into the
 * program `workload`, and has one line for each kind of load that it is:
 *
 *   WORKLOAD(churn, run_churn);
 *
 * `run_churn` is called as main() would be, for `workload load churn SEED BYTES
 * [key=value..]`.  Most have a `struct workload_ops` and call workload_main() of serve.h,
 * which reads the words, answers commands and has the work done in between.
 */
#ifndef FREEPAGE_WORKLOAD_H
#define FREEPAGE_WORKLOAD_H

struct workload {
	const char *kind;
	int (*run)(int argc, char **argv);
};

/* The linker collects the entries of all files, in a section of that name. */
#define WORKLOAD(name, function) \
	static const struct workload workload_##name = { #name, function }; \
	static const struct workload *const workload_entry_##name \
		__attribute__((used, section("workloads"))) = &workload_##name

#endif /* FREEPAGE_WORKLOAD_H */
