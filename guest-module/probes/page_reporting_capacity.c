// SPDX-License-Identifier: GPL-2.0
/* May a driver say how many blocks one report can take? */
#include <linux/page_reporting.h>

void probe(struct page_reporting_dev_info *info);
void probe(struct page_reporting_dev_info *info)
{
	info->capacity = 1;
}
