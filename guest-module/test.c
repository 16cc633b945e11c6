// SPDX-License-Identifier: GPL-2.0
/*
 * Controls for tests; see test.h.  /sys/kernel/debug/freepage_balloon/test/:
 *
 *   hold          write a point: the worker stands there, at each walk, from now
 *                 on; "-POINT" or "none" takes it back; read: which are set.  At
 *                 "going-offline" it is whoever takes memory offline that stands
 *   held/POINT    can be polled; readable, with "POINT ID ENTRIES", while the
 *                 worker stands there, empty otherwise
 *   release       write anything: who stands goes on.  ESRCH if nobody does
 *   misbehave     write "NAME [NUMBER]..."; "none" ends it; read: all names, the
 *                 current one marked
 *   take          write a number: so many pages are allocated, read, and kept; never
 *                 written to, unless the kernel clears what it allocates
 *   break         write anything: all queues are broken, as when a device was pulled out
 *   hold_entries, mid_entries, chunk_bits, pass_chunks
 *
 * and beside the counters: misbehaved, how often the misbehaviour made a
 * difference, and stood, how often the worker stood at a hold.
 */

#include <linux/debugfs.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/moduleparam.h>
#include <linux/nodemask.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "freepage.h"
#include "test.h"
#include "window.h"

/*
 * Whoever polls is entered here, and may still be when the device is gone; the
 * module itself stays while one of its files is open.
 */
static DECLARE_WAIT_QUEUE_HEAD(fpb_test_changed);

static const char *const fpb_point_names[FPB_NR_POINTS] = {
	[FPB_BEFORE_WALK] = "before-walk",	/* the request was taken */
	[FPB_MID_WALK] = "mid-walk",		/* in the middle of a list, lock dropped */
	[FPB_AFTER_WALK] = "after-walk",	/* the answer was not queued */
	[FPB_GOING_OFFLINE] = "going-offline",	/* a block's free pages are isolated */
};

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
	if (likely(READ_ONCE(info->test.misbehave) != what))
		return false;
	info->test.misbehaved++;
	return true;
}

/* Holds */

static void fpb_test_stands(struct fpb_info *info, enum fpb_point point)
{
	info->test.stood++;
	WRITE_ONCE(info->test.released, false);
	/* Before anybody can see that we stand: a release counts from then on. */
	smp_mb__before_atomic();
	set_bit(point, &info->test.standing);
	wake_up_all(&fpb_test_changed);
}

static void fpb_test_goes_on(struct fpb_info *info, enum fpb_point point)
{
	clear_bit(point, &info->test.standing);
	wake_up_all(&fpb_test_changed);
}

void fpb_test_stand(struct fpb_info *info, int generation, enum fpb_point point)
{
	struct fpb_test *test = &info->test;

	if (!test_bit(point, &test->holds) || fpb_superseded(info, generation))
		return;
	fpb_test_stands(info, point);
	wait_event_idle(info->returned, READ_ONCE(test->released) ||
			!test_bit(point, &test->holds) || fpb_superseded(info, generation));
	fpb_test_goes_on(info, point);
}

/*
 * In the memory notifier: the block's free pages are on the lists of isolated
 * ones, and stay there, whatever requests come and go.  Nothing moves meanwhile;
 * who unregisters the notifier waits for us, so the end of the driver lets us go.
 */
void fpb_test_stand_offline(struct fpb_info *info)
{
	struct fpb_test *test = &info->test;

	if (!test_bit(FPB_GOING_OFFLINE, &test->holds) || READ_ONCE(info->stopping))
		return;
	fpb_test_stands(info, FPB_GOING_OFFLINE);
	wait_event_idle(info->returned, READ_ONCE(test->released) ||
			!test_bit(FPB_GOING_OFFLINE, &test->holds) ||
			READ_ONCE(info->stopping));
	fpb_test_goes_on(info, FPB_GOING_OFFLINE);
}

void fpb_test_stand_midway(struct fpb_pass *pass)
{
	if (pass->entries >= READ_ONCE(pass->info->test.mid_entries))
		fpb_test_stand(pass->info, pass->generation, FPB_MID_WALK);
}

/* Where the worker is to stand midway, a hold ends after just so many entries. */
unsigned long fpb_hold_entries(struct fpb_pass *pass)
{
	struct fpb_test *test = &pass->info->test;
	unsigned long max = READ_ONCE(test->hold_entries), mid = READ_ONCE(test->mid_entries);

	max = max ? min_t(unsigned long, max, FPB_HOLD_ENTRIES) : FPB_HOLD_ENTRIES;
	if (test_bit(FPB_MID_WALK, &test->holds) && pass->entries < mid)
		max = min(max, mid - pass->entries);
	return fpb_misbehaves(pass->info, FPB_LONG_HOLD) ? ULONG_MAX : max;
}

static int fpb_find_name(const char *const *names, int nr, const char *name)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(names[i], name))
			return i;
	return -EINVAL;
}

static int hold_show(struct seq_file *m, void *unused)
{
	struct fpb_info *info = m->private;
	int i;

	for (i = 0; i < FPB_NR_POINTS; i++)
		if (test_bit(i, &info->test.holds))
			seq_printf(m, "%s\n", fpb_point_names[i]);
	return 0;
}

static ssize_t hold_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct fpb_info *info = file_inode(file)->i_private;
	char text[32];
	int point;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	text[size] = '\0';
	strim(text);
	if (!strcmp(text, "none")) {
		for (point = 0; point < FPB_NR_POINTS; point++)
			clear_bit(point, &info->test.holds);
	} else {
		point = fpb_find_name(fpb_point_names, FPB_NR_POINTS, text + (text[0] == '-'));
		if (point < 0)
			return point;
		if (text[0] == '-')
			clear_bit(point, &info->test.holds);
		else
			set_bit(point, &info->test.holds);
	}
	wake_up_all(&info->returned);
	return size;
}

static ssize_t release_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct fpb_info *info = file_inode(file)->i_private;

	if (!READ_ONCE(info->test.standing))
		return -ESRCH;
	WRITE_ONCE(info->test.released, true);
	wake_up_all(&info->returned);
	return size;
}

static ssize_t held_read(struct file *file, char __user *to, size_t size, loff_t *at)
{
	const struct fpb_test_point *here = file->private_data;
	char text[96];
	int length;

	if (!test_bit(here->point, &here->info->test.standing))
		return 0;
	length = scnprintf(text, sizeof(text), "%s %llu %llu\n", fpb_point_names[here->point],
			   here->info->counters.last_id, here->info->counters.last_entries);
	return simple_read_from_buffer(to, size, at, text, length);
}

static __poll_t held_poll(struct file *file, poll_table *wait)
{
	const struct fpb_test_point *here = file->private_data;

	poll_wait(file, &fpb_test_changed, wait);
	return test_bit(here->point, &here->info->test.standing) ? EPOLLIN | EPOLLRDNORM : 0;
}

static int hold_open(struct inode *inode, struct file *file)
{
	return single_open(file, hold_show, inode->i_private);
}

static const struct file_operations hold_fops = {
	.owner = THIS_MODULE,
	.open = hold_open,
	.read = seq_read,
	.write = hold_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static const struct file_operations release_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = release_write,
	.llseek = noop_llseek,
};

static const struct file_operations held_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = held_read,
	.poll = held_poll,
	.llseek = default_llseek,
};

/* Misbehaviours */

unsigned int fpb_chunk_bits(struct fpb_info *info)
{
	unsigned int bits = round_down(READ_ONCE(info->test.chunk_bits), 64);

	return bits ? min(bits, VFPI_MAX_BITS) : VFPI_MAX_BITS;
}

unsigned long fpb_pass_chunks(struct fpb_info *info)
{
	unsigned int most = READ_ONCE(info->test.pass_chunks);

	return most ? min_t(unsigned int, most, FPB_MAX_CHUNKS) : FPB_MAX_CHUNKS;
}

/* Buffers that may be had, from the beginning on: as if memory had no more room for them. */
static unsigned int fpb_max_chunks_param = FPB_MAX_CHUNKS;
module_param_named(max_chunks, fpb_max_chunks_param, uint, 0600);
MODULE_PARM_DESC(max_chunks, "buffers for answers that may be had");

unsigned long fpb_max_chunks(struct fpb_info *info)
{
	return min_t(unsigned int, READ_ONCE(fpb_max_chunks_param), FPB_MAX_CHUNKS);
}

void fpb_test_begin(struct fpb_info *info, const struct fpb_job *job)
{
	info->test.ids[1] = info->test.ids[0] ? info->test.ids[0] : job->id - 1;
	info->test.ids[0] = job->id;
	if (fpb_misbehaves(info, FPB_LEAK)) {
		void *lost = kmalloc(PAGE_SIZE, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(lost);
	}
}

static void fpb_mark_frames(struct fpb_pass *pass, unsigned long first, unsigned long nr)
{
	first = max(first, pass->start);
	for (; nr && first < pass->end; first++, nr--)
		fpb_mark(pass, first, 0);
}

/* Called under the zone's lock, for a block that was just marked. */
void fpb_test_block(struct fpb_pass *pass, unsigned long pfn, unsigned int order)
{
	struct fpb_info *info = pass->info;

	if (fpb_misbehaves(info, FPB_WRONG_ORDER)) {
		fpb_mark(pass, pfn, order + 1);
	} else if (fpb_misbehaves(info, FPB_PAST_END)) {
		fpb_mark(pass, pfn + (1UL << order), 0);
	} else if (fpb_misbehaves(info, FPB_SLEEP_IN_HOLD)) {
		might_sleep();
	} else if (fpb_misbehaves(info, FPB_WRITES_PAGES)) {
		unsigned long end = pfn + (1UL << order);

		for (; pfn < end; pfn++)
			++*(u64 *)page_address(pfn_to_page(pfn));
	} else if (pfn < pass->start && pfn + (1UL << order) > pass->start &&
		   fpb_misbehaves(info, FPB_DROP_EDGE)) {
		/* Only its own part of the first chunk can have been set by it. */
		bitmap_clear((__force unsigned long *)pass->chunks[0]->bitmap,
			     pass->start - pass->base, pfn + (1UL << order) - pass->start);
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
	unsigned long pfn;
	unsigned int nr = 0;

	for (pfn = pass->start; pfn < pass->end && nr < 32; pfn++) {
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
	const unsigned long block = 1UL << (FPB_NR_ORDERS - 1);
	unsigned long pfn, i;
	unsigned int nr;

	for (pfn = pass->base; pfn < pass->end; pfn += block) {
		unsigned long *bitmap;

		i = (pfn - pass->base) / pass->chunk_bits;
		bitmap = (__force unsigned long *)pass->chunks[i]->bitmap;
		i = (pfn - pass->base) % pass->chunk_bits;
		nr = min(block, pass->end - pfn);
		if (nr < block || find_next_zero_bit(bitmap, i + nr, i) < i + nr)
			bitmap_clear(bitmap, i, nr);
	}
}

static void fpb_mark_older(struct fpb_pass *pass)
{
	const struct fpb_test *test = &pass->info->test;
	unsigned long pfn;

	for (pfn = pass->start; pfn < pass->end; pfn++) {
		unsigned long i = pfn / VFPI_MAX_BITS, bit = pfn % VFPI_MAX_BITS;

		if (i >= test->nr_older)
			return;
		if (le64_to_cpu(test->older[i].bitmap[bit / 64]) & BIT_ULL(bit % 64))
			fpb_mark(pass, pfn, 0);
	}
}

void fpb_test_walked(struct fpb_pass *pass)
{
	struct fpb_info *info = pass->info;
	struct fpb_test *test = &info->test;
	unsigned int i;

	mutex_lock(&test->lock);
	if (fpb_misbehaves(info, FPB_REPORT_OWNED)) {
		for (i = 0; i + 1 < test->nr_args; i += 2)
			fpb_mark_frames(pass, test->args[i], test->args[i + 1]);
	} else if (fpb_misbehaves(info, FPB_REPORT_ALL)) {
		fpb_mark_frames(pass, pass->start, pass->end - pass->start);
	} else if (fpb_misbehaves(info, FPB_REPORT_PERCPU)) {
		fpb_mark_percpu(pass);
	} else if (fpb_misbehaves(info, FPB_REPORT_IN_USE)) {
		fpb_mark_taken(pass, false);
	} else if (fpb_misbehaves(info, FPB_REPORT_RESERVED)) {
		fpb_mark_taken(pass, true);
	} else if (fpb_misbehaves(info, FPB_MAX_ORDER_ONLY)) {
		fpb_keep_max_order(pass);
	} else if (!test->older_wanted && fpb_misbehaves(info, FPB_OLDER_WALK)) {
		for (i = 0; i < pass->nr_chunks; i++)
			memset(pass->chunks[i]->bitmap, 0, FPB_CHUNK_BYTES);
		fpb_mark_older(pass);
	}
	mutex_unlock(&test->lock);
}

/* "header": 0 id, 1 start, 2 bits, 3 shift, 4 flags, 5 seq; then the value. */
void fpb_test_header(struct fpb_info *info, struct vfpi_response *header)
{
	const struct fpb_test *test = &info->test;
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
__le64 *fpb_test_bitmap(struct fpb_info *info, struct fpb_chunk *chunk)
{
	if (!fpb_misbehaves(info, FPB_REUSE_BUFFER))
		return chunk->bitmap;
	if (chunk != info->chunks[0])
		memcpy(info->chunks[0]->bitmap, chunk->bitmap, FPB_CHUNK_BYTES);
	return info->chunks[0]->bitmap;
}

unsigned int fpb_test_words(struct fpb_info *info, unsigned int nr_bits)
{
	if (fpb_misbehaves(info, FPB_SHORT_LAST_CHUNK))
		return nr_bits / 64;
	return DIV_ROUND_UP(nr_bits, 64);
}

static void fpb_free_older(struct fpb_test *test)
{
	while (test->nr_older)
		kvfree(test->older[--test->nr_older].bitmap);
	kfree(test->older);
	test->older = NULL;
}

static int fpb_alloc_older(struct fpb_test *test)
{
	unsigned long nr = DIV_ROUND_UP(fpb_end_pfn(), VFPI_MAX_BITS);

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

/* In the worker, which alone may walk: the walk that later requests are answered with. */
void fpb_test_work(struct fpb_info *info)
{
	struct fpb_test *test = &info->test;
	struct fpb_pass pass = {
		.info = info,
		.generation = atomic_read(&info->generation),
		.end = fpb_end_pfn(),
		.chunk_bits = VFPI_MAX_BITS,
		.nr_chunks = test->nr_older,
	};
	unsigned int i;

	if (!READ_ONCE(test->older_wanted))
		return;
	for (i = 0; i < test->nr_older; i++)
		pass.chunks[i] = &test->older[i];
	pass.end = min_t(unsigned long, pass.end, (unsigned long)pass.nr_chunks * VFPI_MAX_BITS);
	fpb_walk(&pass);
	WRITE_ONCE(test->older_wanted, false);
	complete(&test->older_done);
}

static int fpb_walk_now(struct fpb_info *info)
{
	struct fpb_test *test = &info->test;
	int err;

	/* A worker that stands would keep us waiting; one that walks needs the memory. */
	if (test->standing || test->older_wanted)
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
	struct fpb_test *test = &info->test;
	char *word = strsep(&text, " ");
	u64 args[FPB_TEST_ARGS];
	unsigned int nr = 0;
	int what, err = 0;

	what = fpb_find_name(fpb_misbehaviours, FPB_NR_MISBEHAVIOURS, word);
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
	WRITE_ONCE(test->misbehave, FPB_BEHAVE);
	memcpy(test->args, args, nr * sizeof(args[0]));
	test->nr_args = nr;
	test->misbehaved = 0;
	if (what == FPB_OLDER_WALK)
		err = fpb_walk_now(info);
	if (!err)
		WRITE_ONCE(test->misbehave, what);
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
	struct fpb_test *test = &info->test;
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

/* What a transport does when a device was pulled out, or a ring makes no sense. */
static ssize_t break_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct fpb_info *info = file_inode(file)->i_private;

	virtio_break_device(info->vdev);
	return size;
}

static const struct file_operations break_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = break_write,
	.llseek = noop_llseek,
};

static int misbehave_show(struct seq_file *m, void *unused)
{
	const struct fpb_info *info = m->private;
	int i;

	for (i = 0; i < FPB_NR_MISBEHAVIOURS; i++)
		seq_printf(m, "%s%s\n", i == info->test.misbehave ? "*" : "",
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

void fpb_test_init(struct fpb_info *info)
{
	int i;

	mutex_init(&info->test.lock);
	INIT_LIST_HEAD(&info->test.taken);
	init_completion(&info->test.older_done);
	info->test.mid_entries = 1;
	for (i = 0; i < FPB_NR_POINTS; i++)
		info->test.points[i] = (struct fpb_test_point){ info, i };
}

/* No file of ours is in use any more, and no worker runs. */
void fpb_test_exit(struct fpb_info *info)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &info->test.taken, lru)
		__free_page(page);
	fpb_free_older(&info->test);
	/* Who still polls learns that there is nothing any more. */
	wake_up_all(&fpb_test_changed);
}

void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent)
{
	struct dentry *dir = debugfs_create_dir("test", parent), *held;
	struct fpb_test *test = &info->test;
	int i;

	debugfs_create_file("hold", 0600, dir, info, &hold_fops);
	debugfs_create_file("release", 0200, dir, info, &release_fops);
	debugfs_create_file("misbehave", 0600, dir, info, &misbehave_fops);
	debugfs_create_file("take", 0200, dir, info, &take_fops);
	debugfs_create_file("break", 0200, dir, info, &break_fops);
	/* With the other counters, so that who reads those has these. */
	debugfs_create_u64("misbehaved", 0444, parent, &test->misbehaved);
	debugfs_create_u64("stood", 0444, parent, &test->stood);
	debugfs_create_u32("hold_entries", 0600, dir, &test->hold_entries);
	debugfs_create_u32("mid_entries", 0600, dir, &test->mid_entries);
	debugfs_create_u32("chunk_bits", 0600, dir, &test->chunk_bits);
	debugfs_create_u32("pass_chunks", 0600, dir, &test->pass_chunks);
	held = debugfs_create_dir("held", dir);
	for (i = 0; i < FPB_NR_POINTS; i++)
		debugfs_create_file(fpb_point_names[i], 0400, held, &test->points[i], &held_fops);
	if (fpb_misbehave_param)
		fpb_misbehave_from_param(info);
}
