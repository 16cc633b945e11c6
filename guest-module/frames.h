/* SPDX-License-Identifier: GPL-2.0 */
/* How many frames the machine has. */
#ifndef FREEPAGE_FRAMES_H
#define FREEPAGE_FRAMES_H

#include <linux/mmzone.h>
#include <linux/nodemask.h>

/* One past the last frame of the machine. */
static inline unsigned long fpb_end_pfn(void)
{
	unsigned long end = 0;
	int nid;

	for_each_online_node(nid)
		end = max(end, (unsigned long)node_end_pfn(nid));
	return end;
}

#endif /* FREEPAGE_FRAMES_H */
