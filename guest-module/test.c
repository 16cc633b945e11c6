// SPDX-License-Identifier: GPL-2.0
/*
 * Controls for tests: their folder, and of its own
 *
 *   break         write anything: all queues are broken, as when a device was pulled out
 */

#include <linux/debugfs.h>
#include <linux/virtio.h>

#include "freepage.h"
#include "test.h"

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

void fpb_test_init(struct fpb_info *info)
{
	fpb_holds_init(info);
	fpb_misbehave_init(info);
}

/* No file of ours is in use any more, and no worker runs. */
void fpb_test_exit(struct fpb_info *info)
{
	fpb_misbehave_exit(info);
	fpb_holds_exit();
}

void fpb_test_debugfs(struct fpb_info *info, struct dentry *parent)
{
	struct dentry *dir = debugfs_create_dir("test", parent);

	debugfs_create_file("break", 0200, dir, info, &break_fops);
	fpb_holds_debugfs(info, dir, parent);
	fpb_misbehave_debugfs(info, dir, parent);
}
