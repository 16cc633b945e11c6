// SPDX-License-Identifier: GPL-2.0
/* Is it for the driver's migration hook to change the balloon's list, under the balloon's lock? */
#include <linux/balloon_compaction.h>
#include <linux/spinlock.h>

void probe(struct balloon_dev_info *info, struct page *page);
void probe(struct balloon_dev_info *info, struct page *page)
{
	unsigned long flags;

	spin_lock_irqsave(&info->pages_lock, flags);
	balloon_page_insert(info, page);
	spin_unlock_irqrestore(&info->pages_lock, flags);
}
