/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Controls for tests, in debugfs under test/.  Compiled in by FREEPAGE_TEST=1
 * only: they stretch the moments in which something could go wrong until a test
 * can hit them.  A newer request, or the end of the driver, ends every pause.
 */
#ifndef FREEPAGE_TEST_H
#define FREEPAGE_TEST_H

#include <linux/debugfs.h>
#include <linux/delay.h>

#include "freepage.h"

#ifdef FREEPAGE_TEST

/* Entries that one hold of the lock may visit. */
static inline unsigned long fpb_hold_entries(const struct fpb_info *info)
{
	u32 entries = READ_ONCE(info->test.hold_entries);

	return entries ? min_t(u32, entries, FPB_HOLD_ENTRIES) : FPB_HOLD_ENTRIES;
}

static inline void fpb_test_pause(struct fpb_info *info, int generation, u32 us)
{
	if (us >= 10000)
		wait_event_idle_timeout(info->returned, fpb_superseded(info, generation),
					usecs_to_jiffies(us));
	else if (us)
		usleep_range(us, us + us / 4);
}

#define fpb_test_pause_at(info, generation, where) \
	fpb_test_pause(info, generation, READ_ONCE((info)->test.pause_ ## where ## _us))

static inline void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent)
{
	struct dentry *dir = debugfs_create_dir("test", parent);

	debugfs_create_u32("hold_entries", 0600, dir, &info->test.hold_entries);
	debugfs_create_u32("pause_before_us", 0600, dir, &info->test.pause_before_us);
	debugfs_create_u32("pause_between_us", 0600, dir, &info->test.pause_between_us);
	debugfs_create_u32("pause_after_us", 0600, dir, &info->test.pause_after_us);
}

#else

static inline unsigned long fpb_hold_entries(const struct fpb_info *info)
{
	return FPB_HOLD_ENTRIES;
}

#define fpb_test_pause_at(info, generation, where)	do { } while (0)

static inline void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent)
{
}

#endif
#endif /* FREEPAGE_TEST_H */
