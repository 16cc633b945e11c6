// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Waits for interrupts, one at a time, for a guest that is about to be migrated.
 *
 *   load interrupts SEED BYTES [disk=BYTES] [patience=SECONDS] [keep=BYTES] [at=PCI-ADDRESS]
 *
 * Each chain is a process that waits for one thing, and begins the next when it has come.
 * Nothing is asked again, and nobody polls: an interrupt that is lost ends the chain.
 *
 *   timer    a timer, of the processor's own interrupt
 *   disk     a block of the disk, read past the page cache; two chains, on two processors,
 *            since a disk may have a queue for each
 *   wakeup   two processors wake each other by turns (one: two threads of it)
 *
 * `stop` waits until each chain has made some steps more; one that does not within
 * `patience` seconds is stuck.  `report` tells how many steps each has made, whether it is
 * stuck, and the longest time from one step to the next.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/timerfd.h>

#include "disk.h"
#include "serve.h"
#include "work.h"
#include "workload.h"

#define TIMER_NS	2000000
#define LAST_STEPS	8

enum { TIMER, FIRST_DISK, SECOND_DISK, WAKEUP, NR_CHAINS };

struct chain {
	_Atomic uint64_t steps, longest_us;
	atomic_int failed;
	int stuck;
	double last;
};

static struct {
	struct chain chains[NR_CHAINS];
	int disk, timer, there[2], back[2];
	uint64_t seed, bytes, patience, keep;
	const char *address;
	struct region kept;
} interrupts = { .bytes = 1 * MIB, .patience = 5, .keep = 8 * MIB };

static void stop(void);
static struct tally verify(void);
static int report(const char *line);
static struct server server = { .stop = stop, .verify = verify, .other = report };

static void step(struct chain *chain)
{
	double t = now();
	uint64_t us = (t - chain->last) * 1e6;

	if (chain->steps && us > chain->longest_us)
		chain->longest_us = us;
	chain->last = t;
	chain->steps++;
	work_done(1);
}

static void stay_on(long processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(processor % sysconf(_SC_NPROCESSORS_ONLN), &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void *by_timer(void *of)
{
	struct itimerspec once = { .it_value = { 0, TIMER_NS } };
	struct chain *chain = of;
	uint64_t expired;

	for (;;) {
		if (timerfd_settime(interrupts.timer, 0, &once, NULL) ||
		    read(interrupts.timer, &expired, sizeof(expired)) != sizeof(expired))
			break;
		step(chain);
	}
	chain->failed = errno;
	return NULL;
}

static void *by_disk(void *of)
{
	void *buffer = map(PAGE_BYTES, 0);
	uint64_t pages = interrupts.bytes / PAGE_BYTES;
	struct chain *chain = of;

	stay_on(chain - &interrupts.chains[FIRST_DISK]);
	for (;;) {
		uint64_t page = mix64(interrupts.seed + chain->steps) % pages;

		if (pread(interrupts.disk, buffer, PAGE_BYTES, page * PAGE_BYTES) != (ssize_t)PAGE_BYTES)
			break;
		step(chain);
	}
	chain->failed = errno ? errno : EIO;
	return NULL;
}

static void *send_back(void *of)
{
	char byte;

	stay_on(1);
	while (read(interrupts.there[0], &byte, 1) == 1 && write(interrupts.back[1], &byte, 1) == 1)
		;
	((struct chain *)of)->failed = errno;
	return NULL;
}

static void *by_wakeup(void *of)
{
	struct itimerspec once = { .it_value = { 0, TIMER_NS } };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct chain *chain = of;
	uint64_t expired;
	char byte = 0;

	stay_on(0);
	/* Not as fast as it can: the other processor has to be idle to be woken. */
	while (!timerfd_settime(timer, 0, &once, NULL) &&
	       read(timer, &expired, sizeof(expired)) == sizeof(expired) &&
	       write(interrupts.there[1], &byte, 1) == 1 && read(interrupts.back[0], &byte, 1) == 1)
		step(chain);
	chain->failed = errno;
	return NULL;
}

/* Not by a timer: those may be what is lost. */
static void stop(void)
{
	unsigned int i;

	server.steps = 0;
	for (i = 0; i < NR_CHAINS; i++) {
		struct chain *chain = &interrupts.chains[i];
		uint64_t wanted = chain->steps + LAST_STEPS;
		double since = now();

		while (chain->steps < wanted && now() - since < interrupts.patience)
			sched_yield();
		chain->stuck = chain->steps < wanted;
		server.steps += chain->steps;
	}
}

static struct tally verify(void)
{
	return check_all(&interrupts.kept);
}

#define EACH(name, what) do { \
		unsigned int each; \
		json_list(j, name); \
		for (each = 0; each < NR_CHAINS; each++) { \
			const struct chain *chain = &interrupts.chains[each]; \
			json_number(j, NULL, what); \
		} \
		json_end(j); \
	} while (0)

static int report(const char *line)
{
	struct json *j;

	if (strcmp(line, "report"))
		return 0;
	j = answer_begin();
	EACH("steps", chain->steps);
	EACH("stuck", chain->stuck);
	EACH("failed", chain->failed);
	EACH("longest_us", chain->longest_us);
	answer_end(j);
	return 1;
}

static void begin(int which, void *(*run)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, &interrupts.chains[which]))
		die("pthread_create: %s", strerror(errno));
}

static uint64_t load(const struct load *load, struct tally *t)
{
	interrupts.seed = load->seed;
	if (interrupts.bytes < PAGE_BYTES)
		die("that is no size");
	demand_size(interrupts.keep);
	region_load(&interrupts.kept, interrupts.seed, interrupts.keep, 1, t);
	interrupts.disk = disk_open_writable(interrupts.address);
	interrupts.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (interrupts.timer < 0 || pipe(interrupts.there) || pipe(interrupts.back))
		die("no timer, or no pipe: %s", strerror(errno));
	work_done(0);	/* finds the counter, before there are threads */
	begin(TIMER, by_timer);
	begin(FIRST_DISK, by_disk);
	begin(SECOND_DISK, by_disk);
	begin(WAKEUP, send_back);
	begin(WAKEUP, by_wakeup);
	return 0;
}

static const struct workload_option options[] = {
	{ "disk", .number = &interrupts.bytes }, { "patience", .number = &interrupts.patience },
	{ "keep", .number = &interrupts.keep }, { "at", .word = &interrupts.address }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load,
};

static int run(int argc, char **argv)
{
	/* Past whatever is done at an exit: a thread may stand in the kernel, and never come back. */
	_exit(workload_main(argc, argv, &ops));
}

WORKLOAD(interrupts, run);
