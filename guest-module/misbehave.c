// SPDX-License-Identifier: GPL-2.0
/*
 * Misbehaviours; see misbehave.h.  /sys/kernel/debug/freepage_balloon/test/:
 *
 *   misbehave     write "NAME [NUMBER]..."; "none" ends it; read: all names, the
 *                 current one marked
 *   take          write a number: so many pages are allocated, read, and kept; never
 *                 written to, unless the kernel clears what it allocates
 *
 * and beside the counters: misbehaved, how often the misbehaviour made a difference.
 */

#include <linux/debugfs.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/moduleparam.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "frames.h"
#include "freepage.h"
#include "window.h"

#define FPB_TEST_TAKE	65536

static const char *const fpb_misbehaviours[FPB_NR_MISBEHAVIOURS] = {
	[FPB_BEHAVE] = "none",
	[FPB_REPORT_OWNED] = "report-owned",	/* FIRST COUNT ...: frames that are in use */
	[FPB_REPORT_ALL] = "report-all",	/* every frame of the window */
	[FPB_REPORT_PERCPU] = "report-percpu",	/* what is on per-cpu lists as well */
	[FPB_WRONG_ORDER] = "wrong-order",	/* blocks are twice as large */
	[FPB_PAST_END] = "past-end",		/* blocks are one frame longer */
	[FPB_DROP_EDGE] = "drop-edge",		/* a block across the lower edge is lost */
	[FPB_KEEP_BITS] = "keep-bits",		/* bitmaps keep what was in them */
	[FPB_OLDER_WALK] = "older-walk",	/* answers come from a walk made now */
	[FPB_FIRST_WALK] = "first-walk",	/* later answers come from the first one's walk */
	[FPB_TRUST_CURSOR] = "trust-cursor",	/* the cursor is not checked on resuming */
	[FPB_REUSE_BUFFER] = "reuse-buffer",	/* all chunks travel in one bitmap */
	[FPB_STALE_ID] = "stale-id",		/* answers name the request before */
	[FPB_HEADER] = "header",		/* FIELD VALUE: see fpb_test_header() */
	[FPB_HIDE_CONTENT] = "hide-content",	/* CONTENT_MATTERS is never said */
	[FPB_DROP_LAST] = "drop-last",		/* an answer's last chunk is not sent */
	[FPB_NO_ANSWER] = "no-answer",		/* none is */
	[FPB_DUPLICATE] = "duplicate",		/* each is sent twice */
	[FPB_BACKWARDS] = "backwards",		/* the last one comes first */
	[FPB_IGNORE_NEWER] = "ignore-newer",	/* a newer request stops nothing */
	[FPB_KEEP_REQUEST] = "keep-request",	/* the request's buffer is not posted again */
	[FPB_LONG_HOLD] = "long-hold",		/* a list is read in one hold */
	[FPB_SLEEP_IN_HOLD] = "sleep-in-hold",	/* might sleep under the zone's lock */
	[FPB_LEAK] = "leak",			/* an allocation is forgotten at each walk */
	[FPB_REPORT_IN_USE] = "report-in-use",	/* a few pages that hold somebody's data */
	[FPB_REPORT_RESERVED] = "report-reserved",	/* a few frames that never were free */
	[FPB_REPORT_ISOLATED] = "report-isolated",	/* what is about to go offline */
	[FPB_MAX_ORDER_ONLY] = "max-order-only",	/* only the largest blocks */
	[FPB_WRITES_PAGES] = "writes-pages",	/* free pages are written to */
	[FPB_SHORT_LAST_CHUNK] = "short-last-chunk",	/* a last part word is cut off */
	/* From the beginning only, by the module's parameter: */
	[FPB_NO_FEATURE] = "no-feature",	/* free page info is not negotiated */
	[FPB_IGNORE_POISON] = "ignore-poison",	/* page poisoning is no reason to decline */
};

static char *fpb_misbehave_param;
module_param_named(misbehave, fpb_misbehave_param, charp, 0400);
MODULE_PARM_DESC(misbehave, "how to go wrong from the beginning; as test/misbehave in debugfs");

bool fpb_misbehaves_from_start(enum fpb_misbehaviour what)
{
	return fpb_misbehave_param && !strcmp(fpb_misbehave_param, fpb_misbehaviours[what]);
}

bool fpb_misbehaves(struct fpb_info *info, enum fpb_misbehaviour what)
{
	if (likely(READ_ONCE(info->misbehaving.what) != what))
		return false;
	info->misbehaving.count++;
	return true;
}

void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job)
{
	u64 *ids = info->misbehaving.ids;

	ids[1] = ids[0] ? ids[0] : job->id - 1;
	ids[0] = job->id;
	if (fpb_misbehaves(info, FPB_LEAK)) {
		void *lost = kmalloc(PAGE_SIZE, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(lost);
	}
}

static void fpb_mark_stretch(struct fpb_pass *pass, unsigned long first, unsigned long nr)
{
	first = max(first, pass->start);
	for (; nr && first < pass->end; first++, nr--)
		fpb_mark_frames(pass, first, 0);
}

/* Called under the zone's lock, for a block that was just marked. */
void fpb_test_block(struct fpb_pass *pass, unsigned long pfn, unsigned int order)
{
	unsigned long first = pfn << FPB_PAGE_ORDER;
	unsigned long after = (pfn + (1UL << order)) << FPB_PAGE_ORDER;
	struct fpb_info *info = pass->info;

	if (fpb_misbehaves(info, FPB_WRONG_ORDER)) {
		fpb_mark(pass, pfn, order + 1);
	} else if (fpb_misbehaves(info, FPB_PAST_END)) {
		fpb_mark_frames(pass, after, 0);
	} else if (fpb_misbehaves(info, FPB_SLEEP_IN_HOLD)) {
		might_sleep();
	} else if (fpb_misbehaves(info, FPB_WRITES_PAGES)) {
		unsigned long end = pfn + (1UL << order);

		for (; pfn < end; pfn++)
			++*(u64 *)page_address(pfn_to_page(pfn));
	} else if (first < pass->start && after > pass->start &&
		   fpb_misbehaves(info, FPB_DROP_EDGE)) {
		/* Only its own part of the first chunk can have been set by it. */
		fpb_clear_bits(pass->chunks[0]->bitmap, pass->start - pass->base,
			       after - pass->base);
	}
}

static void fpb_mark_percpu(struct fpb_pass *pass)
{
#ifdef HAVE_PERCPU_LISTS
	struct per_cpu_pages *pcp;
	unsigned long flags;
	struct zone *zone;
	struct page *page;
	int nid, cpu, i;

	for_each_online_node(nid) {
		for (zone = NODE_DATA(nid)->node_zones;
		     zone < NODE_DATA(nid)->node_zones + MAX_NR_ZONES; zone++) {
			if (!populated_zone(zone))
				continue;
			for_each_online_cpu(cpu) {
				pcp = per_cpu_ptr(zone->per_cpu_pageset, cpu);
				spin_lock_irqsave(&pcp->lock, flags);
				for (i = 0; i < NR_PCP_LISTS; i++)
					list_for_each_entry(page, &pcp->lists[i], pcp_list)
						fpb_mark(pass, page_to_pfn(page), 0);
				spin_unlock_irqrestore(&pcp->lock, flags);
			}
		}
	}
#endif
}

/* A few pages, in use since before the request and left alone, or reserved by the firmware. */
static void fpb_mark_taken(struct fpb_pass *pass, bool reserved)
{
	unsigned long pfn, end = pass->end >> FPB_PAGE_ORDER;
	unsigned int nr = 0;

	for (pfn = pass->start >> FPB_PAGE_ORDER; pfn < end && nr < 32; pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (!page || (reserved ? !PageReserved(page) : !PageLRU(page)))
			continue;
		fpb_mark(pass, pfn, 0);
		nr++;
	}
}

/* Take back whatever is not part of a block of the largest order. */
static void fpb_keep_max_order(struct fpb_pass *pass)
{
	const unsigned long block = 1UL << (FPB_NR_ORDERS - 1 + FPB_PAGE_ORDER);
	unsigned long frame, i;
	unsigned int nr;

	for (frame = pass->base; frame < pass->end; frame += block) {
		__le64 *bitmap;

		i = (frame - pass->base) / pass->chunk_bits;
		bitmap = pass->chunks[i]->bitmap;
		i = (frame - pass->base) % pass->chunk_bits;
		nr = min(block, pass->end - frame);
		if (nr < block || !fpb_all_set(bitmap, i, i + nr))
			fpb_clear_bits(bitmap, i, i + nr);
	}
}

static void fpb_free_older(struct fpb_misbehaving *test)
{
	while (test->nr_older)
		kvfree(test->older[--test->nr_older].bitmap);
	kfree(test->older);
	test->older = NULL;
}

static int fpb_alloc_older(struct fpb_misbehaving *test)
{
	unsigned long nr = DIV_ROUND_UP(fpb_end_frame(), VFPI_MAX_BITS);

	if (nr > FPB_MAX_CHUNKS)
		return -EFBIG;
	test->older = kcalloc(nr, sizeof(*test->older), GFP_KERNEL);
	if (!test->older)
		return -ENOMEM;
	while (test->nr_older < nr) {
		test->older[test->nr_older].bitmap = kvzalloc(FPB_CHUNK_BYTES, GFP_KERNEL);
		if (!test->older[test->nr_older].bitmap) {
			fpb_free_older(test);
			return -ENOMEM;
		}
		test->nr_older++;
	}
	return 0;
}

static void fpb_mark_older(struct fpb_pass *pass)
{
	const struct fpb_misbehaving *test = &pass->info->misbehaving;
	unsigned long frame;

	for (frame = pass->start; frame < pass->end; frame++) {
		unsigned long i = frame / VFPI_MAX_BITS, bit = frame % VFPI_MAX_BITS;

		if (i >= test->nr_older)
			return;
		if (fpb_all_set(test->older[i].bitmap, bit, bit + 1))
			fpb_mark_frames(pass, frame, 0);
	}
}

static void fpb_answer_from_memory(struct fpb_pass *pass)
{
	unsigned int i;

	for (i = 0; i < pass->nr_chunks; i++)
		memset(pass->chunks[i]->bitmap, 0, FPB_CHUNK_BYTES);
	fpb_mark_older(pass);
}

/* Keep what this walk has found; later ones find nothing else. */
static void fpb_remember(struct fpb_pass *pass)
{
	const struct fpb_misbehaving *test = &pass->info->misbehaving;
	unsigned long frame;

	for (frame = pass->start; frame < pass->end; frame++) {
		unsigned long i = (frame - pass->base) / pass->chunk_bits;
		unsigned long bit = (frame - pass->base) % pass->chunk_bits;
		unsigned long to = frame / VFPI_MAX_BITS, at = frame % VFPI_MAX_BITS;

		if (to >= test->nr_older)
			return;
		if (fpb_all_set(pass->chunks[i]->bitmap, bit, bit + 1))
			fpb_set_bits(test->older[to].bitmap, at, at + 1);
	}
}

void fpb_test_walked(struct fpb_pass *pass)
{
	struct fpb_info *info = pass->info;
	struct fpb_misbehaving *test = &info->misbehaving;
	unsigned int i;

	mutex_lock(&test->lock);
	if (fpb_misbehaves(info, FPB_REPORT_OWNED)) {
		for (i = 0; i + 1 < test->nr_args; i += 2)
			fpb_mark_stretch(pass, test->args[i], test->args[i + 1]);
	} else if (fpb_misbehaves(info, FPB_REPORT_ALL)) {
		fpb_mark_stretch(pass, pass->start, pass->end - pass->start);
	} else if (fpb_misbehaves(info, FPB_REPORT_PERCPU)) {
		fpb_mark_percpu(pass);
	} else if (fpb_misbehaves(info, FPB_REPORT_IN_USE)) {
		fpb_mark_taken(pass, false);
	} else if (fpb_misbehaves(info, FPB_REPORT_RESERVED)) {
		fpb_mark_taken(pass, true);
	} else if (fpb_misbehaves(info, FPB_MAX_ORDER_ONLY)) {
		fpb_keep_max_order(pass);
	} else if (!test->older_wanted && fpb_misbehaves(info, FPB_OLDER_WALK)) {
		fpb_answer_from_memory(pass);
	} else if (READ_ONCE(test->what) == FPB_FIRST_WALK && !test->nr_older) {
		if (!fpb_alloc_older(test))
			fpb_remember(pass);
	} else if (fpb_misbehaves(info, FPB_FIRST_WALK)) {
		fpb_answer_from_memory(pass);
	}
	mutex_unlock(&test->lock);
}

/* "header": 0 id, 1 start, 2 bits, 3 shift, 4 flags, 5 seq; then the value. */
void fpb_test_header(struct fpb_info *info, struct vfpi_response *header)
{
	const struct fpb_misbehaving *test = &info->misbehaving;
	u64 value = test->args[1];

	if (fpb_misbehaves(info, FPB_STALE_ID))
		header->id = cpu_to_le64(test->ids[1]);
	if (fpb_misbehaves(info, FPB_HIDE_CONTENT))
		header->flags &= ~cpu_to_le16(VFPI_RESP_CONTENT_MATTERS);
	if (!fpb_misbehaves(info, FPB_HEADER))
		return;
	switch (test->args[0]) {
	case 0:
		header->id = cpu_to_le64(value);
		break;
	case 1:
		header->start_pfn = cpu_to_le64(value);
		break;
	case 2:
		header->nr_bits = cpu_to_le32(value);
		break;
	case 3:
		header->page_shift = cpu_to_le16(value);
		break;
	case 4:
		header->flags = cpu_to_le16(value);
		break;
	case 5:
		header->seq = cpu_to_le64(value);
		break;
	}
}

/* The bitmap to send with a chunk: with "reuse-buffer" the same for all, whoever reads it yet. */
__le64 *fpb_test_bitmap(struct fpb_info *info, __le64 *bitmap)
{
	__le64 *first = info->chunks[0]->bitmap;

	if (!fpb_misbehaves(info, FPB_REUSE_BUFFER))
		return bitmap;
	if (bitmap != first)
		memcpy(first, bitmap, FPB_CHUNK_BYTES);
	return first;
}

/* Who reuses its buffer while the host may read it: the host is told with the last one. */
bool fpb_test_unnoticed(struct fpb_info *info, u16 flags)
{
	return !(flags & VFPI_RESP_DONE) && fpb_misbehaves(info, FPB_REUSE_BUFFER);
}

bool fpb_test_drops(struct fpb_info *info, bool last)
{
	return fpb_misbehaves(info, FPB_NO_ANSWER) ||
	       (last && fpb_misbehaves(info, FPB_DROP_LAST));
}

/* Which of a pass's chunks is sent in which turn. */
unsigned int fpb_test_turn(struct fpb_info *info, unsigned int i, unsigned int nr)
{
	return fpb_misbehaves(info, FPB_BACKWARDS) ? nr - 1 - i : i;
}

unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits)
{
	if (fpb_misbehaves(info, FPB_SHORT_LAST_CHUNK))
		return nr_bits / 64;
	return DIV_ROUND_UP(nr_bits, 64);
}

/* In the worker, which alone may walk: the walk that later requests are answered with. */
void fpb_test_work(struct fpb_info *info, void (*walk)(struct fpb_pass *pass))
{
	struct fpb_misbehaving *test = &info->misbehaving;
	struct fpb_pass pass = {
		.info = info,
		.generation = atomic_read(&info->generation),
		.end = fpb_end_frame(),
		.chunk_bits = VFPI_MAX_BITS,
		.nr_chunks = test->nr_older,
	};
	unsigned int i;

	if (!READ_ONCE(test->older_wanted))
		return;
	for (i = 0; i < test->nr_older; i++)
		pass.chunks[i] = &test->older[i];
	pass.end = min_t(unsigned long, pass.end, (unsigned long)pass.nr_chunks * VFPI_MAX_BITS);
	walk(&pass);
	WRITE_ONCE(test->older_wanted, false);
	complete(&test->older_done);
}

static int fpb_walk_now(struct fpb_info *info)
{
	struct fpb_misbehaving *test = &info->misbehaving;
	int err;

	/* A worker that stands would keep us waiting; one that walks needs the memory. */
	if (info->test.standing || test->older_wanted)
		return -EBUSY;
	fpb_free_older(test);
	err = fpb_alloc_older(test);
	if (err)
		return err;
	reinit_completion(&test->older_done);
	WRITE_ONCE(test->older_wanted, true);
	queue_work(info->workqueue, &info->work);
	/* fpb_test_walked() takes the lock that we hold. */
	mutex_unlock(&test->lock);
	err = wait_for_completion_killable(&test->older_done);
	mutex_lock(&test->lock);
	return err;
}

static int fpb_set_misbehaviour(struct fpb_info *info, char *text)
{
	struct fpb_misbehaving *test = &info->misbehaving;
	char *word = strsep(&text, " ");
	u64 args[FPB_TEST_ARGS];
	unsigned int nr = 0;
	int what, err = 0;

	what = match_string(fpb_misbehaviours, FPB_NR_MISBEHAVIOURS, word);
	if (what < 0)
		return what;
	while ((word = strsep(&text, " "))) {
		if (nr == FPB_TEST_ARGS)
			return -E2BIG;
		err = kstrtou64(word, 0, &args[nr++]);
		if (err)
			return err;
	}
	if ((what == FPB_REPORT_OWNED && (!nr || nr % 2)) ||
	    (what == FPB_HEADER && (nr != 2 || args[0] > 5)) ||
	    (what != FPB_REPORT_OWNED && what != FPB_HEADER && nr))
		return -EINVAL;
#ifndef HAVE_PERCPU_LISTS
	if (what == FPB_REPORT_PERCPU)
		return -EOPNOTSUPP;
#endif

	mutex_lock(&test->lock);
	WRITE_ONCE(test->what, FPB_BEHAVE);
	memcpy(test->args, args, nr * sizeof(args[0]));
	test->nr_args = nr;
	test->count = 0;
	if (what == FPB_OLDER_WALK)
		err = fpb_walk_now(info);
	if (!err)
		WRITE_ONCE(test->what, what);
	mutex_unlock(&test->lock);
	return err;
}

static ssize_t misbehave_write(struct file *file, const char __user *from, size_t size,
			       loff_t *at)
{
	struct fpb_info *info = file_inode(file)->i_private;
	char *text;
	int err;

	if (size >= PAGE_SIZE)
		return -E2BIG;
	text = memdup_user_nul(from, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	err = fpb_set_misbehaviour(info, strim(text));
	kfree(text);
	return err ? err : size;
}

static void fpb_misbehave_from_param(struct fpb_info *info)
{
	char *text = kstrdup(fpb_misbehave_param, GFP_KERNEL);
	int err = text ? fpb_set_misbehaviour(info, text) : -ENOMEM;

	if (err)
		dev_err(&info->vdev->dev, "misbehave=%s: error %d\n", fpb_misbehave_param, err);
	kfree(text);
}

/* Allocate pages and only read them: what anybody may do who does not care what is in them. */
static int fpb_take(struct fpb_info *info, unsigned int nr)
{
	struct fpb_misbehaving *test = &info->misbehaving;
	int err = 0;

	mutex_lock(&test->lock);
	while (nr-- && !err) {
		struct page *page = alloc_page(GFP_KERNEL);
		const u64 *words;
		unsigned int i;

		if (!page) {
			err = -ENOMEM;
			break;
		}
		words = page_address(page);
		for (i = 0; i < PAGE_SIZE / sizeof(*words); i++)
			test->taken_sum += READ_ONCE(words[i]);
		list_add(&page->lru, &test->taken);
	}
	mutex_unlock(&test->lock);
	return err;
}

static ssize_t take_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct fpb_info *info = file_inode(file)->i_private;
	unsigned int nr;
	int err = kstrtouint_from_user(from, size, 0, &nr);

	if (!err)
		err = nr && nr <= FPB_TEST_TAKE ? fpb_take(info, nr) : -EINVAL;
	return err ? err : size;
}

static const struct file_operations take_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = take_write,
	.llseek = noop_llseek,
};

static int misbehave_show(struct seq_file *m, void *unused)
{
	const struct fpb_info *info = m->private;
	int i;

	for (i = 0; i < FPB_NR_MISBEHAVIOURS; i++)
		seq_printf(m, "%s%s\n", i == info->misbehaving.what ? "*" : "",
			   fpb_misbehaviours[i]);
	return 0;
}

static int misbehave_open(struct inode *inode, struct file *file)
{
	return single_open(file, misbehave_show, inode->i_private);
}

static const struct file_operations misbehave_fops = {
	.owner = THIS_MODULE,
	.open = misbehave_open,
	.read = seq_read,
	.write = misbehave_write,
	.llseek = seq_lseek,
	.release = single_release,
};

void fpb_misbehave_init(struct fpb_info *info)
{
	mutex_init(&info->misbehaving.lock);
	INIT_LIST_HEAD(&info->misbehaving.taken);
	init_completion(&info->misbehaving.older_done);
}

void fpb_misbehave_exit(struct fpb_info *info)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &info->misbehaving.taken, lru)
		__free_page(page);
	fpb_free_older(&info->misbehaving);
}

void fpb_misbehave_debugfs(struct fpb_info *info, struct dentry *dir, struct dentry *parent)
{
	debugfs_create_file("misbehave", 0600, dir, info, &misbehave_fops);
	debugfs_create_file("take", 0200, dir, info, &take_fops);
	/* With the other counters, so that who reads those has it. */
	debugfs_create_u64("misbehaved", 0444, parent, &info->misbehaving.count);
	if (fpb_misbehave_param)
		fpb_misbehave_from_param(info);
}
