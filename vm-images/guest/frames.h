/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where pages are in the guest's memory. */
#ifndef FREEPAGE_FRAMES_H
#define FREEPAGE_FRAMES_H

#include "region.h"

/* For frame_of(); -1 where there is none. */
int frames_open(void);

/*
 * The frame of a page, counted in pages of PAGE_BYTES; 0 where it has none, or without
 * CAP_SYS_ADMIN.
 */
uint64_t frame_of(int frames, const void *address);

/*
 * For `other` of a server: the command "frames PATH" writes {page, frame} pairs of the
 * owned pages, as little endian 64 bit words, for whoever fetches the file.
 */
int answer_frames(const struct region *r, const char *line);

#endif /* FREEPAGE_FRAMES_H */
