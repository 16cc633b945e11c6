// SPDX-License-Identifier: GPL-2.0
/* The balloon's common part: <linux/balloon.h>; <linux/balloon_compaction.h> before. */
#include <linux/balloon.h>

struct page *probe(struct balloon_dev_info *info);
struct page *probe(struct balloon_dev_info *info)
{
	return balloon_page_dequeue(info);
}
