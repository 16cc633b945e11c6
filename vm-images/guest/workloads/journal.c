// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A disk that is written, for a guest that is about to be migrated.
 *
 *   load journal SEED BYTES [disk=BYTES] [depth=REQUESTS] [patience=SECONDS] [keep=BYTES]
 *                          [at=PCI-ADDRESS]
 *
 * `depth` writers work on /dev/vda (or the disk at that address) past the page cache, each
 * with one request on its way and with blocks of its own: writer W has those whose number is W modulo depth.
 * Step K of a writer is a function of the seed, W and K alone (journal_step), so the
 * number of steps that were acknowledged is the whole journal: from it the host knows
 * what the disk must hold, and reads the image itself.
 *
 * A block that step K wrote holds the formula in generation K; it was zero before the
 * first.  What a writer reads it compares with what it was told was written.
 *
 * A request that is not answered is noticed: a writer that makes no step for
 * `patience` seconds is stuck, and `stop` waits no longer for it.  Seconds are counted
 * by the ticks of a timer, and not taken from a clock, which a migration may set.
 *
 * `report` tells the rest: steps by writer, what was on its way, what went wrong.
 */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "disk.h"
#include "serve.h"
#include "work.h"
#include "workload.h"

#define MOST_WRITERS	32
#define TICK_MS		100
/* After `stop` each writer makes so many steps more: a queue that is dead shows. */
#define LAST_STEPS	4

enum { STEP_WRITE, STEP_READ, STEP_FLUSH, STEP_DISCARD, STEP_ZERO, STEP_KINDS };

struct journal_step {
	int kind;
	uint64_t block;
};

struct block {
	uint32_t written;	/* the step that wrote it last; 0: none */
	uint32_t blanked;	/* a later one that made it zero, or may have */
	int maybe;		/* it may: a discard need not do anything */
};

struct writer {
	pthread_t thread;
	unsigned int number;
	uint64_t blocks;
	struct block *state;
	void *buffer;
	/* Written by its thread and read by all; `last` the other way round. */
	_Atomic uint64_t steps, last;	/* acknowledged; not beyond `last` */
	atomic_int busy, failed, done;
	_Atomic uint64_t counts[STEP_KINDS], bad, first_bad;
	uint64_t seen;			/* steps at the last tick */
	unsigned int still;		/* ticks since */
};

static struct {
	int disk;
	uint64_t seed, bytes, depth, patience;
	uint64_t keep;
	const char *address;
	struct writer writers[MOST_WRITERS];
	struct region kept;
	unsigned int longest;		/* ticks that a writer stood still */
} journal = { .bytes = 16 * MIB, .depth = 8, .patience = 10, .keep = 8 * MIB };

static void stop(void);
static struct tally verify(void);
static int report(const char *line);
static struct server server = { .stop = stop, .verify = verify, .other = report };

/* Step K, from 1, of a writer with so many blocks. */
static struct journal_step journal_step(uint64_t seed, uint64_t writer, uint64_t k, uint64_t blocks)
{
	uint64_t a = mix64(seed + (writer + 1) * GENERATION_MUL + k * GOLDEN);
	unsigned int draw = a & 31;
	struct journal_step step = { STEP_WRITE, (a >> 16) % blocks };

	if (draw >= 30)
		step.kind = STEP_ZERO;
	else if (draw >= 28)
		step.kind = STEP_DISCARD;
	else if (draw >= 26)
		step.kind = STEP_FLUSH;
	else if (draw >= 18)
		step.kind = STEP_READ;
	return step;
}

static uint64_t number_of(const struct writer *w, uint64_t block)
{
	return block * journal.depth + w->number;
}

static int is_zero(const uint64_t *words)
{
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++)
		if (words[i])
			return 0;
	return 1;
}

/* Whether a block holds what its writer was told is on the disk. */
static int right(const struct writer *w, uint64_t block)
{
	const struct block *b = &w->state[block];
	uint64_t key = page_key(journal.seed, number_of(w, block), b->written), sum;

	if ((b->blanked || !b->written) && is_zero(w->buffer))
		return 1;
	if (!b->written || (b->blanked && !b->maybe))
		return 0;
	return page_check(w->buffer, key, &sum) == PAGE_WORDS;
}

/* A discard or zeroes, as the kernel asks a disk for them; a file, in tests, gets a hole. */
static int blank(unsigned long how, uint64_t *range)
{
	if (!ioctl(journal.disk, how, range))
		return 1;
	return errno == ENOTTY && !fallocate(journal.disk, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					     range[0], range[1]);
}

/* Returns whether the disk did as it was told. */
static int request(struct writer *w, const struct journal_step *step, uint64_t k)
{
	uint64_t number = number_of(w, step->block), range[2] = { number * PAGE_BYTES, PAGE_BYTES };

	switch (step->kind) {
	case STEP_WRITE:
		page_fill(w->buffer, page_key(journal.seed, number, k));
		return pwrite(journal.disk, w->buffer, PAGE_BYTES, range[0]) == PAGE_BYTES;
	case STEP_READ:
		return pread(journal.disk, w->buffer, PAGE_BYTES, range[0]) == PAGE_BYTES;
	case STEP_DISCARD:
		return blank(BLKDISCARD, range) || errno == EOPNOTSUPP;
	case STEP_ZERO:
		return blank(BLKZEROOUT, range);
	default:
		return !fdatasync(journal.disk);
	}
}

static void acknowledged(struct writer *w, const struct journal_step *step, uint64_t k)
{
	struct block *b = &w->state[step->block];

	if (step->kind == STEP_WRITE) {
		*b = (struct block){ .written = k };
	} else if (step->kind == STEP_ZERO) {
		*b = (struct block){ .written = b->written, .blanked = k };
	} else if (step->kind == STEP_DISCARD && !b->blanked) {
		b->blanked = k;
		b->maybe = 1;
	} else if (step->kind == STEP_READ && !right(w, step->block)) {
		if (!w->bad++)
			w->first_bad = number_of(w, step->block);
	}
	w->counts[step->kind]++;
}

static void *write_on(void *of)
{
	struct writer *w = of;

	while (w->steps < w->last) {
		uint64_t k = w->steps + 1;
		struct journal_step step = journal_step(journal.seed, w->number, k, w->blocks);

		w->busy = 1;
		if (!request(w, &step, k)) {
			/* What the block holds now, nobody can say. */
			w->failed = errno ? errno : EIO;
			break;
		}
		acknowledged(w, &step, k);
		w->steps = k;
		w->busy = 0;
		work_done(1);
	}
	w->done = 1;
	return NULL;
}

static int is_stuck(const struct writer *w)
{
	return !w->done && w->still * TICK_MS >= journal.patience * 1000;
}

/* Called each TICK_MS. */
static void tick(void)
{
	unsigned int i;

	for (i = 0; i < journal.depth; i++) {
		struct writer *w = &journal.writers[i];

		w->still = w->done || w->steps != w->seen ? 0 : w->still + 1;
		w->seen = w->steps;
		if (w->still > journal.longest)
			journal.longest = w->still;
	}
}

static int at_work(void)
{
	unsigned int i;

	for (i = 0; i < journal.depth; i++)
		if (!journal.writers[i].done && !is_stuck(&journal.writers[i]))
			return 1;
	return 0;
}

/* Whoever reads a disk that does not answer is never heard of again. */
static int all_done(void)
{
	unsigned int i, done = 1;

	for (i = 0; i < journal.depth; i++)
		done &= journal.writers[i].done;
	return done;
}

/* Those that are stuck stay: a thread that waits for a device cannot be ended. */
static void stop(void)
{
	unsigned int i;

	for (i = 0; i < journal.depth; i++)
		if (journal.writers[i].last == UINT64_MAX)
			journal.writers[i].last = journal.writers[i].steps + LAST_STEPS;
	while (at_work()) {
		poll(NULL, 0, TICK_MS);
		tick();
	}
	/* An image in another format than raw is read by the host, too. */
	if (all_done())
		fdatasync(journal.disk);
	server.steps = server.checked = 0;
	for (i = 0; i < journal.depth; i++) {
		server.steps += journal.writers[i].steps;
		server.checked += journal.writers[i].counts[STEP_READ];
	}
}

static void read_all(struct writer *w)
{
	uint64_t block;

	for (block = 0; block < w->blocks && !w->failed; block++) {
		uint64_t at = number_of(w, block) * PAGE_BYTES;

		if (pread(journal.disk, w->buffer, PAGE_BYTES, at) != PAGE_BYTES)
			w->failed = errno ? errno : EIO;
		else if (!right(w, block) && !w->bad++)
			w->first_bad = number_of(w, block);
	}
}

/*
 * All blocks once more, if the writers are done.  What is found is told by
 * `report`; the tally is of the memory that the workload keeps.
 */
static struct tally verify(void)
{
	unsigned int i;

	for (i = 0; i < journal.depth && all_done(); i++)
		read_all(&journal.writers[i]);
	return check_all(&journal.kept);
}

#define EACH(name, what) do { \
		unsigned int each; \
		json_list(j, name); \
		for (each = 0; each < journal.depth; each++) { \
			const struct writer *w = &journal.writers[each]; \
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
	EACH("steps", w->steps);
	EACH("busy", w->busy);
	EACH("stuck", is_stuck(w));
	EACH("failed", w->failed);
	EACH("bad", w->bad);
	EACH("first_bad", w->first_bad);
	EACH("writes", w->counts[STEP_WRITE]);
	EACH("reads", w->counts[STEP_READ]);
	EACH("flushes", w->counts[STEP_FLUSH]);
	EACH("discards", w->counts[STEP_DISCARD]);
	EACH("zeroed", w->counts[STEP_ZERO]);
	json_number(j, "longest_ms", journal.longest * TICK_MS);
	answer_end(j);
	return 1;
}

static void begin(unsigned int number)
{
	struct writer *w = &journal.writers[number];

	w->number = number;
	w->blocks = journal.bytes / PAGE_BYTES / journal.depth;
	w->last = UINT64_MAX;
	w->state = map(w->blocks * sizeof(*w->state), 0);
	w->buffer = map(PAGE_BYTES, 0);
	if (!w->blocks)
		die("a disk of %" PRIu64 " bytes has no block for each writer", journal.bytes);
	if (pthread_create(&w->thread, NULL, write_on, w))
		die("pthread_create: %s", strerror(errno));
}

static uint64_t load(const struct load *load, struct tally *t)
{
	unsigned int number;

	journal.seed = load->seed;
	if (!journal.depth || journal.depth > MOST_WRITERS)
		die("that is no number of writers");
	demand_size(journal.keep);
	region_load(&journal.kept, journal.seed, journal.keep, 1, t);
	journal.disk = disk_open_writable(journal.address);
	work_done(0);	/* finds the counter, before there are threads */
	for (number = 0; number < journal.depth; number++)
		begin(number);
	return 0;
}

static int events(struct pollfd *in, int *timeout)
{
	(void)in;
	*timeout = TICK_MS;
	return 0;
}

static void work(const struct pollfd *in, int ready)
{
	(void)in;
	if (!ready)
		tick();
}

static const struct workload_option options[] = {
	{ "disk", .number = &journal.bytes }, { "depth", .number = &journal.depth },
	{ "patience", .number = &journal.patience }, { "keep", .number = &journal.keep },
	{ "at", .word = &journal.address }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work,
};

static int run(int argc, char **argv)
{
	/* Past whatever is done at an exit: a thread may stand in the kernel, and never come back. */
	_exit(workload_main(argc, argv, &ops));
}

WORKLOAD(journal, run);
