/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Controls for tests, in debugfs under test/.  Compiled in by FREEPAGE_TEST=1
 * only.  Two kinds:
 *
 *  - A hold makes the worker stand at a point of its way until a test lets it go
 *    on, so that a race's window can be entered at leisure.  A newer request, or
 *    the end of the driver, ends it.
 *  - A misbehaviour makes the driver break the contract, or the protocol, in one
 *    way that somebody might really get wrong.  Whoever checks an answer has to
 *    notice each of them; docs/module.md says what each amounts to.
 *
 * Without FREEPAGE_TEST all of it is nothing: the compiler sees constants.
 */
#ifndef FREEPAGE_TEST_H
#define FREEPAGE_TEST_H

#include "freepage.h"

#ifdef FREEPAGE_TEST

void fpb_test_init(struct fpb_info *info);
void fpb_test_exit(struct fpb_info *info);
void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent);

bool fpb_misbehaves_from_start(enum fpb_misbehaviour what);
bool fpb_misbehaves(struct fpb_info *info, enum fpb_misbehaviour what);
void fpb_test_stand(struct fpb_info *info, int generation, enum fpb_point point);
void fpb_test_stand_offline(struct fpb_info *info);
void fpb_test_work(struct fpb_info *info);
void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job);
unsigned long fpb_hold_entries(struct fpb_pass *pass);
unsigned int fpb_chunk_bits(struct fpb_info *info);
unsigned long fpb_pass_chunks(struct fpb_info *info);
unsigned long fpb_max_chunks(struct fpb_info *info);
void fpb_test_stand_midway(struct fpb_pass *pass);
void fpb_test_block(struct fpb_pass *pass, unsigned long pfn, unsigned int order);
void fpb_test_walked(struct fpb_pass *pass);
void fpb_test_header(struct fpb_info *info, struct vfpi_response *header);
__le64 *fpb_test_bitmap(struct fpb_info *info, struct fpb_chunk *chunk);
unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits);

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

static inline bool fpb_misbehaves_from_start(enum fpb_misbehaviour what)
{
	return false;
}

static inline bool fpb_misbehaves(struct fpb_info *info, enum fpb_misbehaviour what)
{
	return false;
}

static inline void fpb_test_stand(struct fpb_info *info, int generation, enum fpb_point point)
{
}

static inline void fpb_test_stand_offline(struct fpb_info *info)
{
}

static inline void fpb_test_work(struct fpb_info *info)
{
}

static inline void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job)
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

static inline void fpb_test_stand_midway(struct fpb_pass *pass)
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

static inline __le64 *fpb_test_bitmap(struct fpb_info *info, struct fpb_chunk *chunk)
{
	return chunk->bitmap;
}

static inline unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits)
{
	return DIV_ROUND_UP(nr_bits, 64);
}

#endif
#endif /* FREEPAGE_TEST_H */
