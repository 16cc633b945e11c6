// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "frames.h"

int frames_open(void)
{
	return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

uint64_t frame_of(int frames, const void *address)
{
	uint64_t at = (uintptr_t)address, size = system_page(), entry = 0;

	/* Bit 63: present.  Bits 0 to 54: the frame, in pages of the kernel's. */
	if (pread(frames, &entry, 8, at / size * 8) != 8 || !(entry >> 63))
		return 0;
	entry &= (1ULL << 55) - 1;
	return entry ? entry * (size / PAGE_BYTES) + at % size / PAGE_BYTES : 0;
}

static void write_frames(const struct region *r, const char *path)
{
	int map_fd = frames_open();
	FILE *out = fopen(path, "we");
	uint64_t page, count = 0;
	struct json *j;

	if (map_fd < 0 || !out) {
		answer("error %s: %s", out ? "/proc/self/pagemap" : path, strerror(errno));
		goto out;
	}
	for (page = 0; page < r->pages; page++) {
		uint64_t pair[2] = { page, frame_of(map_fd, page_at(r, page)) };

		if (r->generation[page] != FREED)
			count += fwrite(pair, sizeof(pair), 1, out);
	}
	if (fflush(out)) {
		answer("error %s: %s", path, strerror(errno));
		goto out;
	}
	j = answer_begin();
	json_string(j, "path", path);
	json_number(j, "pages", count);
	answer_end(j);
out:
	if (map_fd >= 0)
		close(map_fd);
	if (out)
		fclose(out);
}

int answer_frames(const struct region *r, const char *line)
{
	if (strncmp(line, "frames /", 8))
		return 0;
	write_frames(r, line + 7);
	return 1;
}
