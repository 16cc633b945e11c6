/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a region's pages are in the guest's memory. */
#ifndef FREEPAGE_FRAMES_H
#define FREEPAGE_FRAMES_H

#include <fcntl.h>

#include "region.h"

/*
 * {page, frame} pairs of the owned pages, as little endian 64 bit words, for
 * whoever fetches the file.  The frame needs CAP_SYS_ADMIN; it is 0 without.
 */
static inline void frames(const struct region *r, const char *path)
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

/* For `other` of a server: the command "frames PATH". */
static inline int answer_frames(const struct region *r, const char *line)
{
	if (strncmp(line, "frames /", 8))
		return 0;
	frames(r, line + 7);
	return 1;
}

#endif /* FREEPAGE_FRAMES_H */
