// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Persistent memory, as the disk that its driver makes of it.
 *
 *   pmem begin BYTES    write all of it; a process writes on to it from now on
 *   pmem check BYTES    all of it holds what was written last; then it is written on
 *
 * O_DIRECT goes past the page cache: the driver copies each page into the memory itself,
 * so every write is a store of the processor's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "formula.h"

#define DISK	"/dev/pmem0"
#define SEED	0x706d656dULL	/* "pmem" */
/* A piece of many pages is one request. */
#define PIECE	256
/* Every so many pages one is written on to, around and around. */
#define EACH	7

enum { GO_ON, STAND_STILL };

struct area {
	int fd;
	uint64_t pages;
};

static void write_piece(const struct area *area, uint64_t first, uint64_t count, uint64_t generation,
			uint8_t *buffer)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		page_fill((uint64_t *)(buffer + i * PAGE_BYTES), page_key(SEED, first + i, generation));
	if (pwrite(area->fd, buffer, count * PAGE_BYTES, first * PAGE_BYTES) != (ssize_t)(count * PAGE_BYTES))
		wrong("writing to " DISK ": %s", strerror(errno));
}

/* The generation of a page when `turns` pages have been written on to, one after the other. */
static uint64_t generation_of(uint64_t page, uint64_t pages, uint64_t turns)
{
	uint64_t places = (pages + EACH - 1) / EACH, place = page / EACH;

	if (page % EACH)
		return 1;
	return 1 + turns / places + (place < turns % places);
}

static void *new_buffer(void)
{
	void *buffer;

	if (posix_memalign(&buffer, PAGE_BYTES, PIECE * PAGE_BYTES))
		unable("no memory");
	return buffer;
}

/* shared->count is how many pages it has written on to. */
static void write_on(struct shared *shared, void *argument)
{
	struct area *area = argument;
	uint8_t *buffer = new_buffer();
	uint64_t places = (area->pages + EACH - 1) / EACH;

	for (;;) {
		uint64_t turns = shared->count, page = turns % places * EACH;

		if (shared->order != shared->done) {
			shared->done = shared->order;
			while (shared->word == STAND_STILL && shared->order == shared->done)
				breathe();
			continue;
		}
		page_fill((uint64_t *)buffer, page_key(SEED, page, generation_of(page, area->pages, turns) + 1));
		if (pwrite(area->fd, buffer, PAGE_BYTES, page * PAGE_BYTES) != (ssize_t)PAGE_BYTES)
			shared->failed = errno ? errno : EIO;
		shared->count = turns + 1;
	}
}

static void check_all(const struct area *area, uint64_t turns)
{
	uint64_t first, i, sum, bad = 0, first_bad = 0;
	uint8_t *buffer = new_buffer();

	for (first = 0; first < area->pages; first += PIECE) {
		if (pread(area->fd, buffer, PIECE * PAGE_BYTES, first * PAGE_BYTES) !=
		    (ssize_t)(PIECE * PAGE_BYTES))
			wrong("reading " DISK ": %s", strerror(errno));
		for (i = 0; i < PIECE; i++) {
			uint64_t generation = generation_of(first + i, area->pages, turns);
			uint64_t key = page_key(SEED, first + i, generation);

			if (page_check((uint64_t *)(buffer + i * PAGE_BYTES), key, &sum) == PAGE_WORDS)
				continue;
			if (!bad++)
				first_bad = first + i;
		}
	}
	free(buffer);
	if (bad)
		wrong("%" PRIu64 " of its %" PRIu64 " pages do not hold what was written last, the first is %"
		      PRIu64, bad, area->pages, first_bad);
}

static void run_pmem(int argc, char **argv)
{
	struct shared *shared = shared_of("pmem");
	struct area area;
	uint64_t first;

	if (argc != 2)
		unable("expected: pmem begin|check BYTES");
	area.pages = number_word(argv[1]) / PAGE_BYTES;
	if (!area.pages || area.pages % PIECE)
		unable("expected whole pieces");
	while ((area.fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC)) < 0 && errno == ENOENT)
		breathe();
	if (area.fd < 0)
		wrong(DISK ": %s", strerror(errno));
	if (lseek(area.fd, 0, SEEK_END) < (off_t)(area.pages * PAGE_BYTES))
		wrong(DISK " has %lld bytes", (long long)lseek(area.fd, 0, SEEK_END));
	if (!strcmp(argv[0], "begin")) {
		uint8_t *buffer = new_buffer();

		for (first = 0; first < area.pages; first += PIECE)
			write_piece(&area, first, PIECE, 1, buffer);
		free(buffer);
		check_all(&area, 0);
		in_background("pmem", write_on, &area);
		did("%" PRIu64 " pages were written", area.pages);
		return;
	}
	if (!shared)
		unable("nobody has begun");
	wait_for_work(shared, shared->count);
	give_order(shared, shared->order + 1, STAND_STILL);
	check_all(&area, shared->count);
	did("%" PRIu64 " pages hold what was written last, of %" PRIu64 " writes meanwhile", area.pages,
	    (uint64_t)shared->count);
	give_order(shared, shared->order + 1, GO_ON);
}

DEVICE(pmem, run_pmem);
