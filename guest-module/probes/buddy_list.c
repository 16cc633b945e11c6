// SPDX-License-Identifier: GPL-2.0
/* The name of the link of a page on a free list; lru before it had its own. */
#include <linux/mm_types.h>

struct list_head *probe(struct page *page);
struct list_head *probe(struct page *page)
{
	return &page->buddy_list;
}
