// SPDX-License-Identifier: GPL-2.0
/* Are the counters of reclaim events?  This header has nothing but the events' names. */
#include <linux/vm_event_item.h>

int probe(void);
int probe(void)
{
	return PGSCAN_KSWAPD + PGSCAN_DIRECT + PGSTEAL_KSWAPD + PGSTEAL_DIRECT;
}
