/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Controls for tests, in debugfs under test/: holds (hold.h), misbehaviours
 * (misbehave.h), and a device that breaks.  Compiled in by FREEPAGE_TEST=1 only.
 */
#ifndef FREEPAGE_TEST_H
#define FREEPAGE_TEST_H

#include "freepage.h"

#ifdef FREEPAGE_TEST

void fpb_test_init(struct fpb_info *info);
void fpb_test_exit(struct fpb_info *info);
void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent);

#else

static inline void fpb_test_init(struct fpb_info *info)
{
}

static inline void fpb_test_exit(struct fpb_info *info)
{
}

static inline void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent)
{
}

#endif
#endif /* FREEPAGE_TEST_H */
