// SPDX-License-Identifier: GPL-2.0
/* How does a page that was moved leave the balloon?  In stable since 6.1.160 and 6.12.64. */
#include <linux/balloon_compaction.h>

void probe(struct page *page);
void probe(struct page *page)
{
	balloon_page_finalize(page);
}
