// SPDX-License-Identifier: GPL-2.0
/*
 * Upstream's free page reporting: the allocator hands us free blocks, out of its
 * lists while we hold them, and the host may drop what is in them.
 */

#include <linux/mm.h>
#include <linux/page_reporting.h>

#include "freepage.h"

static int fpb_report(struct page_reporting_dev_info *reporting, struct scatterlist *sg,
		      unsigned int nents)
{
	struct fpb_device *dev = container_of(reporting, struct fpb_device, reporting);
	struct virtqueue *vq = dev->vqs[FPB_VQ_REPORTING];
	unsigned int len;
	int err;

	err = virtqueue_add_inbuf(vq, sg, nents, dev, GFP_NOWAIT | __GFP_NOWARN);
	if (err)
		return err;
	virtqueue_kick(vq);
	/* The pages are ours until the host has returned them. */
	wait_event(dev->reported, virtqueue_get_buf(vq, &len) || virtqueue_is_broken(vq));
	return 0;
}

void fpb_reporting_acked(struct virtqueue *vq)
{
	struct fpb_device *dev = vq->vdev->priv;

	wake_up(&dev->reported);
}

void fpb_reporting_init(struct fpb_device *dev)
{
	init_waitqueue_head(&dev->reported);
}

int fpb_reporting_start(struct fpb_device *dev)
{
	struct virtqueue *vq = dev->vqs[FPB_VQ_REPORTING];

	if (!virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_REPORTING))
		return 0;
	if (!vq || virtqueue_get_vring_size(vq) < PAGE_REPORTING_CAPACITY)
		return -ENOSPC;
	memset(&dev->reporting, 0, sizeof(dev->reporting));
	dev->reporting.report = fpb_report;
#ifdef PAGE_REPORTING_ORDER_UNSPECIFIED
	dev->reporting.order = PAGE_REPORTING_ORDER_UNSPECIFIED;
#endif
	return page_reporting_register(&dev->reporting);
}

void fpb_reporting_stop(struct fpb_device *dev)
{
	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_REPORTING))
		page_reporting_unregister(&dev->reporting);
}
