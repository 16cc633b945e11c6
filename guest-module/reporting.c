// SPDX-License-Identifier: GPL-2.0
/*
 * Upstream's free page reporting: the allocator hands us free blocks, out of its
 * lists while we hold them, and the host may drop what is in them.
 */

#include <linux/mm.h>
#include <linux/page_reporting.h>

#include "freepage.h"

/*
 * The order of the smallest block that is reported, unless the kernel's own is
 * right: its own is 512 MiB where a page has 64 KiB.
 */
#if defined(CONFIG_ARM64) && defined(CONFIG_ARM64_64K_PAGES)
#define FPB_REPORTING_ORDER	5
#elif defined(PAGE_REPORTING_ORDER_UNSPECIFIED)
#define FPB_REPORTING_ORDER	PAGE_REPORTING_ORDER_UNSPECIFIED
#else
#define FPB_REPORTING_ORDER	0
#endif

static int fpb_report(struct page_reporting_dev_info *reporting, struct scatterlist *sg,
		      unsigned int nents)
{
	struct fpb_device *dev = container_of(reporting, struct fpb_device, reporting);
	struct virtqueue *vq = dev->vqs[FPB_VQ_REPORTING];
	int err;

	err = virtqueue_add_inbuf(vq, sg, nents, dev, GFP_NOWAIT | __GFP_NOWARN);
	if (err)
		return err;
	err = fpb_hand_over(dev, vq);
	/* The host may still drop what is in these pages: nobody else may have them yet. */
	if (err)
		fpb_wait_for_reset(dev);
	return err;
}

int fpb_reporting_start(struct fpb_device *dev)
{
	struct virtqueue *vq = dev->vqs[FPB_VQ_REPORTING];

	if (!virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_REPORTING))
		return 0;
	if (!vq)
		return -ENOSPC;
	memset(&dev->reporting, 0, sizeof(dev->reporting));
	dev->reporting.report = fpb_report;
	dev->reporting.order = FPB_REPORTING_ORDER;
#ifdef HAVE_PAGE_REPORTING_CAPACITY
	dev->reporting.capacity = virtqueue_get_vring_size(vq);
#else
	if (virtqueue_get_vring_size(vq) < PAGE_REPORTING_CAPACITY)
		return -ENOSPC;
#endif
	return page_reporting_register(&dev->reporting);
}

void fpb_reporting_stop(struct fpb_device *dev)
{
	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_REPORTING))
		page_reporting_unregister(&dev->reporting);
}
