// SPDX-License-Identifier: GPL-2.0
/* Can the per-cpu lists of free pages be read?  For a misbehaviour of tests only. */
#include <linux/mm_types.h>
#include <linux/mmzone.h>
#include <linux/percpu.h>

struct list_head *probe(struct zone *zone, int cpu, struct page *page);
struct list_head *probe(struct zone *zone, int cpu, struct page *page)
{
	struct per_cpu_pages *pcp = per_cpu_ptr(zone->per_cpu_pageset, cpu);

	spin_lock(&pcp->lock);
	spin_unlock(&pcp->lock);
	return pcp->count ? &page->pcp_list : &pcp->lists[NR_PCP_LISTS - 1];
}
