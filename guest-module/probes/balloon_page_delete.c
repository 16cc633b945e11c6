// SPDX-License-Identifier: GPL-2.0
/* How does a page that was moved leave the balloon?  Before balloon_page_finalize(). */
#include <linux/balloon_compaction.h>

void probe(struct page *page);
void probe(struct page *page)
{
	balloon_page_delete(page);
}
