/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Frames, and how many of them the machine has.  A frame is what a bit of an answer
 * stands for, always 4 KiB; a page of ours is one of them, or several in a row.
 */
#ifndef FREEPAGE_FRAMES_H
#define FREEPAGE_FRAMES_H

#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/virtio_balloon.h>

/* Of a page, counted in frames; a block of ours has its own order on top. */
#define FPB_PAGE_ORDER	(PAGE_SHIFT - VIRTIO_BALLOON_PFN_SHIFT)

/* One past the last frame of the machine. */
static inline unsigned long fpb_end_frame(void)
{
	unsigned long end = 0;
	int nid;

	for_each_online_node(nid)
		end = max(end, (unsigned long)node_end_pfn(nid));
	return end << FPB_PAGE_ORDER;
}

#endif /* FREEPAGE_FRAMES_H */
