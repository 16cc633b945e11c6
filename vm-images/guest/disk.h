/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's disk. disk_read, disk_check: page N holds page N of the formula, under a seed of its own. */
#ifndef FREEPAGE_DISK_H
#define FREEPAGE_DISK_H

#include <fcntl.h>
#include <sys/syscall.h>

#include "pci.h"
#include "region.h"

#ifndef DISK
#define DISK		"/dev/vda"
#endif
#define DISK_MODULE	"/lib/modules/virtio_blk.ko"

/* The small image has the driver as a file: nobody else needs a disk. */
static inline int disk_open_as(int flags)
{
	int module = open(DISK_MODULE, O_RDONLY | O_CLOEXEC), disk;

	if (module >= 0 && syscall(SYS_finit_module, module, "", 0) && errno != EEXIST)
		die("%s: %s", DISK_MODULE, strerror(errno));
	if (module >= 0)
		close(module);
	disk = open(DISK, O_CLOEXEC | flags);
	if (disk < 0)
		die("%s: %s", DISK, strerror(errno));
	return disk;
}

static inline int disk_open(int flags)
{
	return disk_open_as(O_RDONLY | flags);
}

/*
 * Past the page cache: what is acknowledged was acknowledged by the device.  `address` is
 * that of the PCI device on which the disk hangs, whose driver is there; NULL: the only disk.
 */
static inline int disk_open_writable(const char *address)
{
	char name[64], path[80];
	int disk;

	if (!address)
		return disk_open_as(O_RDWR | O_DIRECT);
	if (pci_find_below(address, "block", "", name, sizeof(name)))
		die("there is no PCI device %s", address);
	snprintf(path, sizeof(path), "/dev/%s", name);
	/* The folder in /sys is there before the disk has been looked at. */
	while ((disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC)) < 0 &&
	       (errno == ENOENT || errno == ENXIO || errno == ENOMEDIUM))
		poll(NULL, 0, 10);
	if (disk < 0)
		die("%s: %s", path, strerror(errno));
	return disk;
}

static inline void disk_read(int disk, void *to, uint64_t page, uint64_t pages)
{
	ssize_t bytes = pages * PAGE_BYTES;

	if (pread(disk, to, bytes, page * PAGE_BYTES) != bytes)
		die("reading page %" PRIu64 " of the disk: %s", page, strerror(errno));
}

/* `words` against page `page` of the disk, as page `place` of the workload's. */
static inline void disk_check(const uint64_t *words, uint64_t page, uint64_t place, struct tally *t)
{
	uint64_t key = page_key(DISK_SEED, page, 0), sum;
	unsigned int word = page_check(words, key, &sum);

	t->pages++;
	t->checksum += page_weight(place, sum);
	if (word == PAGE_WORDS || t->bad++)
		return;
	t->page = place;
	t->word = word;
	t->expected = page_word(key, word);
	t->actual = words[word];
}

#endif /* FREEPAGE_DISK_H */
