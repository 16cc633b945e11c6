// SPDX-License-Identifier: GPL-2.0
/*
 * Holds; see hold.h.  /sys/kernel/debug/freepage_balloon/test/:
 *
 *   hold          write a point: the worker stands there, at each walk, from now
 *                 on; "-POINT" or "none" takes it back; read: which are set.  At
 *                 "going-offline" it is whoever takes memory offline that stands
 *   held/POINT    can be polled; readable, with "POINT ID ENTRIES", while the
 *                 worker stands there, empty otherwise
 *   release       write anything: who stands goes on.  ESRCH if nobody does
 *   hold_entries, mid_entries, chunk_bits, pass_chunks
 *
 * and beside the counters: stood, how often the worker stood at a hold.
 */

#include <linux/debugfs.h>
#include <linux/moduleparam.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "freepage.h"

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
	struct fpb_holds *test = &info->test;

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
	struct fpb_holds *test = &info->test;

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
	struct fpb_holds *test = &pass->info->test;
	unsigned long max = READ_ONCE(test->hold_entries), mid = READ_ONCE(test->mid_entries);

	max = max ? min_t(unsigned long, max, FPB_HOLD_ENTRIES) : FPB_HOLD_ENTRIES;
	if (test_bit(FPB_MID_WALK, &test->holds) && pass->entries < mid)
		max = min(max, mid - pass->entries);
	return fpb_misbehaves(pass->info, FPB_LONG_HOLD) ? ULONG_MAX : max;
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
		point = match_string(fpb_point_names, FPB_NR_POINTS, text + (text[0] == '-'));
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

void fpb_holds_init(struct fpb_info *info)
{
	int i;

	info->test.mid_entries = 1;
	for (i = 0; i < FPB_NR_POINTS; i++)
		info->test.points[i] = (struct fpb_test_point){ info, i };
}

/* Who still polls learns that there is nothing any more. */
void fpb_holds_exit(void)
{
	wake_up_all(&fpb_test_changed);
}

void fpb_holds_debugfs(struct fpb_info *info, struct dentry *dir, struct dentry *parent)
{
	struct fpb_holds *test = &info->test;
	struct dentry *held;
	int i;

	debugfs_create_file("hold", 0600, dir, info, &hold_fops);
	debugfs_create_file("release", 0200, dir, info, &release_fops);
	/* With the other counters, so that who reads those has it. */
	debugfs_create_u64("stood", 0444, parent, &test->stood);
	debugfs_create_u32("hold_entries", 0600, dir, &test->hold_entries);
	debugfs_create_u32("mid_entries", 0600, dir, &test->mid_entries);
	debugfs_create_u32("chunk_bits", 0600, dir, &test->chunk_bits);
	debugfs_create_u32("pass_chunks", 0600, dir, &test->pass_chunks);
	held = debugfs_create_dir("held", dir);
	for (i = 0; i < FPB_NR_POINTS; i++)
		debugfs_create_file(fpb_point_names[i], 0400, held, &test->points[i], &held_fops);
}
