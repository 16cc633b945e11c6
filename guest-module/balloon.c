// SPDX-License-Identifier: GPL-2.0
/* Inflate and deflate: the host says how many pages it wants, we give or take. */

#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/virtio_config.h>

#include "freepage.h"

#define RETRY_DELAY	(HZ / 5)	/* when the guest has no page to give */
#define OOM_PAGES	256		/* given back each time that the guest runs dry */
#define OOM_PRIORITY	80		/* the same as the kernel's own driver */

/* Tell the host about pfns[], and wait until it has taken note; an error if it cannot be told. */
static int fpb_tell_host(struct fpb_device *dev, enum fpb_queue which)
{
	struct fpb_balloon *balloon = &dev->balloon;
	struct virtqueue *vq = dev->vqs[which];
	struct scatterlist sg;
	int err;

	lockdep_assert_held(&balloon->lock);
	sg_init_one(&sg, balloon->pfns, balloon->nr_pfns * sizeof(balloon->pfns[0]));
	/* The queue is empty, since we always wait: only a dead device refuses. */
	err = virtqueue_add_outbuf(vq, &sg, 1, balloon, GFP_KERNEL);
	return err ? err : fpb_hand_over(dev, vq);
}

static void fpb_add_pfns(struct fpb_device *dev, struct page *page)
{
	struct fpb_balloon *balloon = &dev->balloon;
	u32 pfn = page_to_pfn(page) * FPB_UNITS_PER_PAGE;
	unsigned int i;

	for (i = 0; i < FPB_UNITS_PER_PAGE; i++)
		balloon->pfns[balloon->nr_pfns++] = cpu_to_virtio32(dev->vdev, pfn + i);
}

/*
 * Where the balloon may deflate when the guest runs out of memory, its pages
 * still count as the guest's; else they are gone for good.
 */
static bool fpb_pages_are_gone(const struct fpb_device *dev)
{
	return !virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
}

static void fpb_account(struct fpb_device *dev, struct page *page, long count)
{
#ifndef HAVE_BALLOON_COUNTS_PAGES
	if (fpb_pages_are_gone(dev))
		adjust_managed_page_count(page, count);
#endif
}

/* How many pages went into the balloon; negative: the host cannot be told of any. */
static long fpb_inflate(struct fpb_device *dev, unsigned long wanted)
{
	struct fpb_balloon *balloon = &dev->balloon;
	struct page *page, *next;
	LIST_HEAD(batch);
	long nr = 0;
	int err;

	/* Outside of the lock, which the OOM notifier takes. */
	wanted = min_t(unsigned long, wanted, FPB_MAX_PFNS / FPB_UNITS_PER_PAGE);
	for (; nr < wanted; nr++) {
		page = balloon_page_alloc();
		if (!page)
			break;
		list_add(&page->lru, &batch);
	}
	if (!nr)
		return 0;

	mutex_lock(&balloon->lock);
	balloon->nr_pfns = 0;
	list_for_each_entry(page, &batch, lru)
		fpb_add_pfns(dev, page);
	/* Before they are the balloon's: what the host was not told of stays ours. */
	err = fpb_tell_host(dev, FPB_VQ_INFLATE);
	list_for_each_entry_safe(page, next, &batch, lru) {
		list_del(&page->lru);
		if (err) {
			put_page(page);
			continue;
		}
		balloon_page_enqueue(&balloon->pages, page);
		fpb_account(dev, page, -1);
	}
	if (!err)
		balloon->nr_pages += nr;
	mutex_unlock(&balloon->lock);
	return err ? err : nr;
}

static unsigned long fpb_deflate(struct fpb_device *dev, unsigned long wanted)
{
	struct fpb_balloon *balloon = &dev->balloon;
	struct page *page, *next;
	unsigned long nr = 0;
	LIST_HEAD(batch);

	mutex_lock(&balloon->lock);
	wanted = min3(wanted, balloon->nr_pages, FPB_MAX_PFNS / FPB_UNITS_PER_PAGE);
	balloon->nr_pfns = 0;
	for (; nr < wanted; nr++) {
		page = balloon_page_dequeue(&balloon->pages);
		/* All that are left are about to be moved; later, then. */
		if (!page)
			break;
		list_add(&page->lru, &batch);
		fpb_add_pfns(dev, page);
	}
	balloon->nr_pages -= nr;
	/*
	 * Before we use the pages: this is what MUST_TELL_HOST asks for.  They are
	 * ours again, too, when the host cannot be told of anything any more.
	 */
	if (nr)
		fpb_tell_host(dev, FPB_VQ_DEFLATE);
	mutex_unlock(&balloon->lock);

	list_for_each_entry_safe(page, next, &batch, lru) {
		list_del(&page->lru);
		fpb_account(dev, page, 1);
		put_page(page);
	}
	return nr;
}

#ifdef FPB_MIGRATES_BALLOON
/* Put a page into the balloon in another one's place, where the driver has to do that. */
static void fpb_replace(struct fpb_device *dev, struct page *new, struct page *old)
{
#ifdef HAVE_BALLOON_PAGES_LOCK
	struct balloon_dev_info *pages = &dev->balloon.pages;
	unsigned long flags;

	get_page(new);
	if (page_zone(new) != page_zone(old)) {
		fpb_account(dev, old, 1);
		fpb_account(dev, new, -1);
	}
	spin_lock_irqsave(&pages->pages_lock, flags);
	balloon_page_insert(pages, new);
	pages->isolated_pages--;
	__count_vm_event(BALLOON_MIGRATE);
	spin_unlock_irqrestore(&pages->pages_lock, flags);
#endif
}

static void fpb_let_go(struct page *old)
{
#ifdef HAVE_BALLOON_PAGES_LOCK
	fpb_finalize_page(old);
	put_page(old);
#endif
}

/*
 * Compaction, or memory that is about to be taken offline, wants a page of the
 * balloon elsewhere: another one goes in, and then this one comes out.
 */
static int fpb_move_page(struct balloon_dev_info *pages, struct page *new, struct page *old,
			 enum migrate_mode mode)
{
	struct fpb_device *dev = container_of(pages, struct fpb_device, balloon.pages);
	struct fpb_balloon *balloon = &dev->balloon;

	/* Whoever holds it may be waiting for memory, and so for us. */
	if (!mutex_trylock(&balloon->lock))
		return -EAGAIN;
	balloon->nr_pfns = 0;
	fpb_add_pfns(dev, new);
	if (fpb_tell_host(dev, FPB_VQ_INFLATE)) {
		mutex_unlock(&balloon->lock);
		return -EAGAIN;
	}
	balloon->nr_pfns = 0;
	fpb_add_pfns(dev, old);
	fpb_tell_host(dev, FPB_VQ_DEFLATE);
	fpb_replace(dev, new, old);
	mutex_unlock(&balloon->lock);
	fpb_let_go(old);
	return 0;
}
#endif

/* Pages that the host wants and does not have; negative: has and does not want. */
static long fpb_missing(struct fpb_device *dev)
{
	u32 units;

	virtio_cread_le(dev->vdev, struct virtio_balloon_config, num_pages, &units);
	return (long)(units / FPB_UNITS_PER_PAGE) - (long)READ_ONCE(dev->balloon.nr_pages);
}

static void fpb_tell_actual(struct fpb_device *dev)
{
	u32 actual = READ_ONCE(dev->balloon.nr_pages) * FPB_UNITS_PER_PAGE;

	virtio_cwrite_le(dev->vdev, struct virtio_balloon_config, actual, &actual);
}

static void fpb_resize(struct work_struct *work)
{
	struct fpb_device *dev = container_of(to_delayed_work(work), struct fpb_device,
					      balloon.resize);
	long missing = fpb_missing(dev), done = 0;

	/* One batch a time, so that a new wish of the host is heard soon. */
	if (missing > 0)
		done = fpb_inflate(dev, missing);
	else if (missing < 0)
		done = fpb_deflate(dev, -missing);
	/* Nothing to do, or nobody to do it for. */
	if (!missing || done < 0) {
		fpb_done(dev, FPB_BUSY_RESIZE, &dev->balloon.resize);
		return;
	}
	if (done)
		fpb_tell_actual(dev);
	else if (missing > 0)
		dev_info_ratelimited(&dev->vdev->dev, "no memory to inflate the balloon\n");
	fpb_queue(dev, FPB_BUSY_RESIZE, &dev->balloon.resize, done ? 0 : RETRY_DELAY);
}

void fpb_balloon_config_changed(struct fpb_device *dev)
{
	fpb_queue(dev, FPB_BUSY_RESIZE, &dev->balloon.resize, 0);
}

static int fpb_out_of_memory(struct notifier_block *nb, unsigned long unused, void *parm)
{
	struct fpb_device *dev = container_of(nb, struct fpb_device, balloon.oom);
	unsigned long *freed = parm, nr;

	nr = fpb_deflate(dev, OOM_PAGES);
	if (nr)
		fpb_tell_actual(dev);
	*freed += nr;
	return NOTIFY_OK;
}

void fpb_balloon_init(struct fpb_device *dev)
{
	struct fpb_balloon *balloon = &dev->balloon;

	mutex_init(&balloon->lock);
	balloon_devinfo_init(&balloon->pages);
#ifdef FPB_MIGRATES_BALLOON
	balloon->pages.migratepage = fpb_move_page;
#endif
	INIT_DELAYED_WORK(&balloon->resize, fpb_resize);
	balloon->oom.notifier_call = fpb_out_of_memory;
	balloon->oom.priority = OOM_PRIORITY;
}

int fpb_balloon_start(struct fpb_device *dev)
{
	int err;

#ifdef HAVE_BALLOON_COUNTS_PAGES
	dev->balloon.pages.adjust_managed_page_count = fpb_pages_are_gone(dev);
#endif
	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_DEFLATE_ON_OOM)) {
		err = register_oom_notifier(&dev->balloon.oom);
		if (err)
			return err;
	}
	/* The host may have asked before we were there. */
	fpb_queue(dev, FPB_BUSY_RESIZE, &dev->balloon.resize, 0);
	return 0;
}

/* Nothing inflates or deflates any more.  The end of work has begun. */
void fpb_balloon_stop(struct fpb_device *dev)
{
	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		unregister_oom_notifier(&dev->balloon.oom);
	cancel_delayed_work_sync(&dev->balloon.resize);
}

/* Takes all pages back, of a balloon that was stopped. */
void fpb_balloon_empty(struct fpb_device *dev)
{
	/* Pages that are being moved are on no list for a moment: until none is left. */
	while (READ_ONCE(dev->balloon.nr_pages)) {
		fpb_deflate(dev, ULONG_MAX);
		cond_resched();
	}
	fpb_tell_actual(dev);
}
