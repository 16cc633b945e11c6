// SPDX-License-Identifier: GPL-2.0
/* Are the counters of reclaim statistics of a node?  (This header has no names of events.) */
#include <linux/mmzone.h>

int probe(void);
int probe(void)
{
	return PGSCAN_KSWAPD + PGSCAN_DIRECT + PGSTEAL_KSWAPD + PGSTEAL_DIRECT;
}
