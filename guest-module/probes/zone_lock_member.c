// SPDX-License-Identifier: GPL-2.0
/* Is the lock of the free lists a spinlock called "lock"? */
#include <linux/mmzone.h>

void probe(struct zone *zone);
void probe(struct zone *zone)
{
	unsigned long flags;

	spin_lock_irqsave(&zone->lock, flags);
	spin_unlock_irqrestore(&zone->lock, flags);
}
