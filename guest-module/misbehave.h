/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Controls for tests: a misbehaviour makes the driver break the contract, or the
 * protocol, in one way that somebody might really get wrong.  Whoever checks an
 * answer has to notice each of them; docs/module.md says what each amounts to.
 *
 * Without FREEPAGE_TEST all of it is nothing: the compiler sees constants.
 */
#ifndef FREEPAGE_MISBEHAVE_H
#define FREEPAGE_MISBEHAVE_H

#include <linux/completion.h>
#include <linux/list.h>
#include <linux/math.h>
#include <linux/mutex.h>
#include <linux/types.h>

struct dentry;
struct fpb_chunk;
struct fpb_info;
struct fpb_job;
struct fpb_pass;
struct vfpi_response;

/* Ways for a test to make the driver go wrong; misbehave.c has their names. */
enum fpb_misbehaviour {
	FPB_BEHAVE,
	FPB_REPORT_OWNED,
	FPB_REPORT_ALL,
	FPB_REPORT_PERCPU,
	FPB_WRONG_ORDER,
	FPB_PAST_END,
	FPB_DROP_EDGE,
	FPB_KEEP_BITS,
	FPB_OLDER_WALK,
	FPB_FIRST_WALK,
	FPB_TRUST_CURSOR,
	FPB_REUSE_BUFFER,
	FPB_STALE_ID,
	FPB_HEADER,
	FPB_HIDE_CONTENT,
	FPB_DROP_LAST,
	FPB_NO_ANSWER,
	FPB_DUPLICATE,
	FPB_BACKWARDS,
	FPB_IGNORE_NEWER,
	FPB_KEEP_REQUEST,
	FPB_LONG_HOLD,
	FPB_SLEEP_IN_HOLD,
	FPB_LEAK,
	FPB_REPORT_IN_USE,
	FPB_REPORT_RESERVED,
	FPB_REPORT_ISOLATED,
	FPB_MAX_ORDER_ONLY,
	FPB_WRITES_PAGES,
	FPB_SHORT_LAST_CHUNK,
	FPB_NO_FEATURE,
	FPB_IGNORE_POISON,
	FPB_NR_MISBEHAVIOURS
};

#ifdef FREEPAGE_TEST
#define FPB_TEST_ARGS	64

struct fpb_misbehaving {
	struct mutex lock;		/* what follows, but for the count */
	enum fpb_misbehaviour what;
	u64 args[FPB_TEST_ARGS];
	unsigned int nr_args;
	u64 count;			/* how often it made a difference */
	struct list_head taken;		/* pages that were allocated and only read */
	u64 taken_sum;			/* of what was read, so that it is */

	u64 ids[2];			/* of this request and the one before */
	bool older_wanted;
	struct completion older_done;
	struct fpb_chunk *older;	/* made when it was asked for, or at the first request */
	unsigned int nr_older;
};

void fpb_misbehave_init(struct fpb_info *info);
void fpb_misbehave_exit(struct fpb_info *info);
void fpb_misbehave_debugfs(struct fpb_info *info, struct dentry *dir, struct dentry *parent);

bool fpb_misbehaves_from_start(enum fpb_misbehaviour what);
bool fpb_misbehaves(struct fpb_info *info, enum fpb_misbehaviour what);
void fpb_test_work(struct fpb_info *info, void (*walk)(struct fpb_pass *pass));
void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job);
void fpb_test_block(struct fpb_pass *pass, unsigned long pfn, unsigned int order);
void fpb_test_walked(struct fpb_pass *pass);
void fpb_test_header(struct fpb_info *info, struct vfpi_response *header);
__le64 *fpb_test_bitmap(struct fpb_info *info, __le64 *bitmap);
unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits);
bool fpb_test_drops(struct fpb_info *info, bool last);
unsigned int fpb_test_turn(struct fpb_info *info, unsigned int i, unsigned int nr);
bool fpb_test_unnoticed(struct fpb_info *info, u16 flags);

#else

struct fpb_misbehaving {
};

static inline bool fpb_misbehaves_from_start(enum fpb_misbehaviour what)
{
	return false;
}

static inline bool fpb_misbehaves(struct fpb_info *info, enum fpb_misbehaviour what)
{
	return false;
}

static inline void fpb_test_work(struct fpb_info *info, void (*walk)(struct fpb_pass *pass))
{
}

static inline void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job)
{
}

static inline void fpb_test_block(struct fpb_pass *pass, unsigned long pfn, unsigned int order)
{
}

static inline void fpb_test_walked(struct fpb_pass *pass)
{
}

static inline void fpb_test_header(struct fpb_info *info, struct vfpi_response *header)
{
}

static inline __le64 *fpb_test_bitmap(struct fpb_info *info, __le64 *bitmap)
{
	return bitmap;
}

static inline unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits)
{
	return DIV_ROUND_UP(nr_bits, 64);
}

static inline bool fpb_test_drops(struct fpb_info *info, bool last)
{
	return false;
}

static inline unsigned int fpb_test_turn(struct fpb_info *info, unsigned int i, unsigned int nr)
{
	return i;
}

static inline bool fpb_test_unnoticed(struct fpb_info *info, u16 flags)
{
	return false;
}

#endif
#endif /* FREEPAGE_MISBEHAVE_H */
