// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <poll.h>
#include <sys/syscall.h>

#include "disk.h"
#include "pci.h"

#ifndef DISK
#define DISK		"/dev/vda"
#endif
#define DISK_MODULE	"/lib/modules/virtio_blk.ko"

/* The small image has the driver as a file: nobody else needs a disk. */
static int disk_open_as(int flags)
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

int disk_open(int flags)
{
	return disk_open_as(O_RDONLY | flags);
}

int disk_open_writable(const char *address)
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

void disk_read(int disk, void *to, uint64_t page, uint64_t pages)
{
	ssize_t bytes = pages * PAGE_BYTES;

	if (pread(disk, to, bytes, page * PAGE_BYTES) != bytes)
		die("reading page %" PRIu64 " of the disk: %s", page, strerror(errno));
}

void disk_check(const uint64_t *words, uint64_t page, uint64_t place, struct tally *t)
{
	uint64_t key = page_key(DISK_SEED, page, 0), sum;
	unsigned int word = page_check(words, key, &sum);

	tally_page(t, place, word, page_word(key, word), word < PAGE_WORDS ? words[word] : 0, sum);
}
