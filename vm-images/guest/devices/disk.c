// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A disk: its first half holds the formula (or zeros), the other half is ours.
 *
 *   disk check ADDRESS PAGES AT GENERATION [formula|blank|any]
 *
 * The disk is on the PCI device at ADDRESS.  Reads pages of the first half, from page AT
 * on; reads the page in the middle, which holds GENERATION (0: nobody has written it); and
 * writes the next generation to it.  "any": what it holds is not known, and nothing is written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "formula.h"

#define PIECES	8

static void read_page(int fd, uint64_t page, void *to, const char *path)
{
	if (pread(fd, to, PAGE_BYTES, page * PAGE_BYTES) != (ssize_t)PAGE_BYTES)
		wrong("reading page %" PRIu64 " of %s: %s", page, path, strerror(errno));
}

/* Whether a page of the first half holds what it must. */
static int right(const char *what, uint64_t number, const uint64_t *words)
{
	uint64_t sum;
	unsigned int i;

	if (!strcmp(what, "any"))
		return 1;
	if (!strcmp(what, "formula"))
		return page_check(words, page_key(DISK_SEED, number, 0), &sum) == PAGE_WORDS;
	for (i = 0; i < PAGE_WORDS; i++)
		if (words[i])
			return 0;
	return 1;
}

static void run_disk(int argc, char **argv)
{
	uint64_t pages, at, generation, half, i, sum;
	const char *what = "formula";
	char name[64], path[80];
	void *page;
	int fd;

	if (argc != 5 && argc != 6)
		unable("expected: disk check ADDRESS PAGES AT GENERATION [WHAT]");
	if (argc == 6)
		what = argv[5];
	pages = number_word(argv[2]);
	at = number_word(argv[3]);
	generation = number_word(argv[4]);
	half = pages / 2 ? pages / 2 : 1;
	if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES))
		unable("no memory");
	find_below(argv[1], "block", "", name, sizeof(name));
	snprintf(path, sizeof(path), "/dev/%s", name);
	/* The folder is there before the disk has been looked at. */
	while ((fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC)) < 0 &&
	       (errno == ENOENT || errno == ENOMEDIUM || errno == ENXIO))
		breathe();
	if (fd < 0)
		wrong("%s: %s", path, strerror(errno));
	if (lseek(fd, 0, SEEK_END) < (off_t)(pages * PAGE_BYTES))
		wrong("%s has %lld bytes", path, (long long)lseek(fd, 0, SEEK_END));
	for (i = 0; i < PIECES; i++) {
		uint64_t number = (at + i * (half / PIECES + 1)) % half;

		read_page(fd, number, page, path);
		if (!right(what, number, page))
			wrong("page %" PRIu64 " of %s holds something else", number, path);
	}
	if (!strcmp(what, "any")) {
		did("%d pages of %s were read", PIECES, path);
		return;
	}
	if (generation) {
		read_page(fd, half, page, path);
		if (page_check(page, page_key(DISK_SEED, half, generation), &sum) != PAGE_WORDS)
			wrong("%s does not hold what was written to it before", path);
	}
	page_fill(page, page_key(DISK_SEED, half, generation + 1));
	if (pwrite(fd, page, PAGE_BYTES, half * PAGE_BYTES) != (ssize_t)PAGE_BYTES || fdatasync(fd))
		wrong("writing to %s: %s", path, strerror(errno));
	did("%d pages of %s are right, and one was written", PIECES + !!generation, path);
}

DEVICE(disk, run_disk);
