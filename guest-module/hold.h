/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Controls for tests: a hold makes the worker stand at a point of its way until a
 * test lets it go on, so that a race's window can be entered at leisure.  A newer
 * request, or the end of the driver, ends it.  With the sizes of what is walked
 * and sent.
 *
 * Without FREEPAGE_TEST all of it is nothing: the compiler sees constants.
 */
#ifndef FREEPAGE_HOLD_H
#define FREEPAGE_HOLD_H

#include <linux/types.h>

struct dentry;
struct fpb_info;
struct fpb_pass;

/* Where a test can make the worker stand; and, last, who takes memory offline. */
enum fpb_point {
	FPB_BEFORE_WALK,
	FPB_MID_WALK,
	FPB_AFTER_WALK,
	FPB_GOING_OFFLINE,
	FPB_NR_POINTS
};

#ifdef FREEPAGE_TEST

struct fpb_test_point {
	struct fpb_info *info;
	enum fpb_point point;
};

struct fpb_holds {
	struct fpb_test_point points[FPB_NR_POINTS];
	unsigned long holds;		/* points to stand at, a bit each */
	unsigned long standing;		/* where the worker stands now, likewise */
	bool released;
	u64 stood;			/* how often it stood */
	u32 hold_entries;		/* entries that one hold may visit; 0: all that it may */
	u32 mid_entries;		/* entries of a walk before it stands midway */
	u32 chunk_bits;			/* frames of a chunk; 0: all that it may */
	u32 pass_chunks;		/* chunks that one pass fills; 0: all that it may */
};

void fpb_holds_init(struct fpb_info *info);
void fpb_holds_exit(void);
void fpb_holds_debugfs(struct fpb_info *info, struct dentry *dir, struct dentry *parent);

void fpb_test_stand(struct fpb_info *info, int generation, enum fpb_point point);
void fpb_test_stand_offline(struct fpb_info *info);
void fpb_test_stand_midway(struct fpb_pass *pass);
unsigned long fpb_hold_entries(struct fpb_pass *pass);
unsigned int fpb_chunk_bits(struct fpb_info *info);
unsigned long fpb_pass_chunks(struct fpb_info *info);
unsigned long fpb_max_chunks(struct fpb_info *info);

#else

struct fpb_holds {
};

static inline void fpb_test_stand(struct fpb_info *info, int generation, enum fpb_point point)
{
}

static inline void fpb_test_stand_offline(struct fpb_info *info)
{
}

static inline void fpb_test_stand_midway(struct fpb_pass *pass)
{
}

static inline unsigned long fpb_hold_entries(struct fpb_pass *pass)
{
	return FPB_HOLD_ENTRIES;
}

static inline unsigned int fpb_chunk_bits(struct fpb_info *info)
{
	return VFPI_MAX_BITS;
}

static inline unsigned long fpb_pass_chunks(struct fpb_info *info)
{
	return FPB_MAX_CHUNKS;
}

static inline unsigned long fpb_max_chunks(struct fpb_info *info)
{
	return FPB_MAX_CHUNKS;
}

#endif
#endif /* FREEPAGE_HOLD_H */
