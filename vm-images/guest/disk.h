/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's disk. disk_read, disk_check: page N holds page N of the formula, under a seed of its own. */
#ifndef FREEPAGE_DISK_H
#define FREEPAGE_DISK_H

#include "region.h"

int disk_open(int flags);
/*
 * Past the page cache: what is acknowledged was acknowledged by the device.  `address` is
 * that of the PCI device on which the disk hangs, whose driver is there; NULL: the only disk.
 */
int disk_open_writable(const char *address);
void disk_read(int disk, void *to, uint64_t page, uint64_t pages);
/* `words` against page `page` of the disk, as page `place` of the workload's. */
void disk_check(const uint64_t *words, uint64_t page, uint64_t place, struct tally *t);

#endif /* FREEPAGE_DISK_H */
