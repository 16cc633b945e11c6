// SPDX-License-Identifier: GPL-2.0
/* Does the common part adjust the count of managed pages, where it is told to? */
#include <linux/balloon.h>

void probe(struct balloon_dev_info *info);
void probe(struct balloon_dev_info *info)
{
	info->adjust_managed_page_count = true;
}
