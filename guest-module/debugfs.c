// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/freepage_balloon/: one file a number, for people and for
 * the testbed.  A second balloon has its device's name appended.
 */

#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/stddef.h>

#include "freepage.h"
#include "test.h"

#define COUNTER(name)	{ #name, offsetof(struct fpb_counters, name) }

static const struct {
	const char *name;
	size_t offset;
} fpb_counter_files[] = {
	COUNTER(requests), COUNTER(requests_none), COUNTER(requests_invalid),
	COUNTER(repost_errors), COUNTER(chunks), COUNTER(answers), COUNTER(partial_answers),
	COUNTER(send_errors), COUNTER(buffer_waits), COUNTER(pages_reported),
	COUNTER(superseded), COUNTER(passes), COUNTER(holds), COUNTER(entries),
	COUNTER(restarts), COUNTER(lists_abandoned), COUNTER(last_id), COUNTER(last_pages),
	COUNTER(last_entries), COUNTER(last_holds), COUNTER(last_walk_ns),
	COUNTER(last_hold_ns), COUNTER(last_answer_ns), COUNTER(max_hold_ns),
	COUNTER(max_hold_entries), COUNTER(max_walk_ns),
};

static void fpb_show_numbers(struct seq_file *m, const u64 *numbers, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		seq_printf(m, "%s%llu", i ? " " : "", numbers[i]);
	seq_putc(m, '\n');
}

/* Free blocks that the last walk visited, by order, from 0. */
static int free_blocks_show(struct seq_file *m, void *unused)
{
	struct fpb_info *info = m->private;

	fpb_show_numbers(m, info->free_blocks, ARRAY_SIZE(info->free_blocks));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(free_blocks);

/* Holds of a zone's lock, by microseconds: below 2, 4, 8 and so on. */
static int hold_times_show(struct seq_file *m, void *unused)
{
	struct fpb_info *info = m->private;

	fpb_show_numbers(m, info->hold_times, ARRAY_SIZE(info->hold_times));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(hold_times);

/* Was free page info negotiated?  1 or 0. */
static int active_show(struct seq_file *m, void *unused)
{
	struct fpb_info *info = m->private;

	seq_printf(m, "%d\n", virtio_has_feature(info->vdev, VIRTIO_BALLOON_F_FREE_PAGE_INFO));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(active);

void fpb_debugfs_add(struct fpb_device *dev)
{
	struct fpb_info *info = &dev->info;
	struct dentry *other, *dir;
	char name[64];
	size_t i;

	other = debugfs_lookup(KBUILD_MODNAME, NULL);
	if (IS_ERR_OR_NULL(other)) {
		strscpy(name, KBUILD_MODNAME, sizeof(name));
	} else {
		dput(other);
		snprintf(name, sizeof(name), "%s-%s", KBUILD_MODNAME, dev_name(&dev->vdev->dev));
	}
	dir = debugfs_create_dir(name, NULL);
	dev->debugfs = dir;
	for (i = 0; i < ARRAY_SIZE(fpb_counter_files); i++)
		debugfs_create_u64(fpb_counter_files[i].name, 0444, dir,
				   (void *)&info->counters + fpb_counter_files[i].offset);
	debugfs_create_ulong("balloon_pages", 0444, dir, &dev->balloon.nr_pages);
	debugfs_create_file("free_blocks", 0444, dir, info, &free_blocks_fops);
	debugfs_create_file("hold_times", 0444, dir, info, &hold_times_fops);
	debugfs_create_file("active", 0444, dir, info, &active_fops);
	fpb_test_debugfs(info, dir);
}

void fpb_debugfs_remove(struct fpb_device *dev)
{
	debugfs_remove(dev->debugfs);
}
