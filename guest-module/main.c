// SPDX-License-Identifier: GPL-2.0
/* The virtio device: which features, which queues, how it comes and goes. */

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poison.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/virtio_ring.h>

#include "freepage.h"

/*
 * The device numbers its queues by the features that it offers, not by those
 * that were negotiated, and a queue without a name gets no number from the
 * transport.  So every queue that is offered is asked for, by name, also those
 * that this driver never uses.  (The specification says otherwise about the
 * numbers; all QEMUs agree with each other.)
 */
static int fpb_find_queues(struct fpb_device *dev)
{
	static const char *const name[FPB_NR_VQS] = {
		"inflate", "deflate", "stats", "hint", "reporting", "free_page_info",
	};
	static vq_callback_t *const callback[FPB_NR_VQS] = {
		fpb_returned, fpb_returned, fpb_stats_requested,
		NULL, fpb_returned, fpb_info_returned,
	};
	static const int feature[FPB_NR_VQS] = {
		-1, -1, VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_FREE_PAGE_HINT,
		VIRTIO_BALLOON_F_REPORTING, VIRTIO_BALLOON_F_FREE_PAGE_INFO,
	};
	u64 offered = fpb_offered_features(dev->vdev);
	const char *names[FPB_NR_VQS];
	vq_callback_t *callbacks[FPB_NR_VQS];
	struct virtqueue *found[FPB_NR_VQS];
	int index[FPB_NR_VQS];
	unsigned int i, nr = 0;
	int err;

	for (i = 0; i < FPB_NR_VQS; i++) {
		dev->vqs[i] = NULL;
		if (feature[i] >= 0 && !(offered & BIT_ULL(feature[i])))
			continue;
		names[nr] = name[i];
		callbacks[nr] = callback[i];
		index[nr++] = i;
	}
	err = fpb_find_vqs(dev->vdev, nr, found, callbacks, names);
	if (err)
		return err;
	for (i = 0; i < nr; i++)
		dev->vqs[index[i]] = found[i];
	return 0;
}

/* Does anybody in this guest rely on what is in a free page? */
static bool fpb_content_matters(void)
{
	return want_init_on_free() || page_poisoning_enabled_static();
}

/* Tell the host what a free page holds: zeros, or the pattern of page poisoning. */
static void fpb_tell_content(struct fpb_device *dev)
{
	__u32 content = 0;

	if (!virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_PAGE_POISON))
		return;
	if (!want_init_on_free())
		memset(&content, PAGE_POISON, sizeof(content));
	virtio_cwrite_le(dev->vdev, struct virtio_balloon_config, poison_val, &content);
}

/* From reset to working; also after a suspend. */
static int fpb_up(struct fpb_device *dev)
{
	struct virtio_device *vdev = dev->vdev;
	int err;

	err = fpb_find_queues(dev);
	if (err)
		return err;
	fpb_busy_start(dev);
	fpb_tell_content(dev);
	virtio_device_ready(vdev);
	fpb_stats_start(dev);
	err = fpb_info_start(dev);
	if (err)
		goto out_queues;
	err = fpb_reporting_start(dev);
	if (err)
		goto out_info;
	err = fpb_balloon_start(dev);
	if (err)
		goto out_reporting;
	return 0;

out_reporting:
	fpb_reporting_stop(dev);
out_info:
	fpb_info_stop(dev);
out_queues:
	fpb_stop_work(dev);
	fpb_stats_stop(dev);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	return err;
}

/* Nothing is done for the host any more, and nobody waits for it. */
static void fpb_quiesce(struct fpb_device *dev)
{
	fpb_stop_work(dev);
	fpb_end_waits(dev);
	fpb_reporting_stop(dev);
	fpb_info_stop(dev);
	fpb_stats_stop(dev);
	fpb_balloon_stop(dev);
}

/* From working to reset.  Afterwards the host holds no memory of ours. */
static void fpb_down(struct fpb_device *dev)
{
	struct virtio_device *vdev = dev->vdev;

	fpb_quiesce(dev);
	fpb_balloon_empty(dev);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
}

/*
 * The machine goes down, or starts another kernel.  Unlike its removal, this waits
 * for no host, and gives no page back: the device is broken, and reset, first.
 */
static void fpb_shutdown(struct virtio_device *vdev)
{
	virtio_break_device(vdev);
	virtio_synchronize_cbs(vdev);
	fpb_quiesce(vdev->priv);
}

/*
 * Where virtio drivers have no shutdown, the bus may have one (in stable since
 * 6.12.y): it breaks and resets the device, wakes nobody who waits for it, and
 * keeps the driver core from calling ours.  A reboot notifier comes before it.
 */
#ifdef HAVE_VIRTIO_DRIVER_SHUTDOWN
static int fpb_watch_reboot(struct fpb_device *dev)
{
	return 0;
}

static void fpb_unwatch_reboot(struct fpb_device *dev)
{
}
#else
static int fpb_reboot(struct notifier_block *block, unsigned long event, void *command)
{
	fpb_shutdown(container_of(block, struct fpb_device, reboot)->vdev);
	return NOTIFY_DONE;
}

static int fpb_watch_reboot(struct fpb_device *dev)
{
	dev->reboot.notifier_call = fpb_reboot;
	return register_reboot_notifier(&dev->reboot);
}

static void fpb_unwatch_reboot(struct fpb_device *dev)
{
	unregister_reboot_notifier(&dev->reboot);
}
#endif

static int fpb_probe(struct virtio_device *vdev)
{
	struct fpb_device *dev;
	int err;

	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the device has no configuration space\n");
		return -EINVAL;
	}
	dev = kzalloc_obj(*dev, GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	vdev->priv = dev;
	dev->vdev = vdev;
	fpb_busy_init(dev);
	fpb_balloon_init(dev);
	fpb_stats_init(dev);
	err = fpb_info_init(dev);
	if (err)
		goto out_free;
	/* The transport's interrupt wakes the guest; we keep it awake while we work. */
	device_set_wakeup_capable(&vdev->dev, true);
	err = fpb_up(dev);
	if (err)
		goto out_info;
	err = fpb_watch_reboot(dev);
	if (err)
		goto out_down;
	fpb_debugfs_add(dev);
	return 0;

out_down:
	fpb_down(dev);
out_info:
	fpb_info_free(dev);
out_free:
	kfree(dev);
	return err;
}

static void fpb_remove(struct virtio_device *vdev)
{
	struct fpb_device *dev = vdev->priv;

	fpb_debugfs_remove(dev);
	fpb_unwatch_reboot(dev);
	fpb_down(dev);
	fpb_info_free(dev);
	kfree(dev);
}

static void fpb_config_changed(struct virtio_device *vdev)
{
	fpb_balloon_config_changed(vdev->priv);
}

#ifdef CONFIG_PM_SLEEP
static int fpb_freeze(struct virtio_device *vdev)
{
	/* The balloon deflates, and inflates again when the device is back. */
	fpb_down(vdev->priv);
	return 0;
}

static int fpb_restore(struct virtio_device *vdev)
{
	return fpb_up(vdev->priv);
}
#endif

static int fpb_validate(struct virtio_device *vdev)
{
	/*
	 * With page poisoning the guest checks, when it allocates a page, that
	 * the pattern it left there is still there.  A page that was left
	 * behind reads as zeros on the destination.
	 */
	if (page_poisoning_enabled_static() && !fpb_misbehaves_from_start(FPB_IGNORE_POISON))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_FREE_PAGE_INFO);
	/* Reporting changes free pages as well: only if the host knows what is in them. */
	if (!fpb_content_matters() || fpb_misbehaves_from_start(FPB_IGNORE_POISON))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_PAGE_POISON);
	else if (!virtio_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_REPORTING);
	if (fpb_misbehaves_from_start(FPB_NO_FEATURE))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_FREE_PAGE_INFO);
	/* The wire is little endian, which only version 1 promises of a device. */
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_F_FREE_PAGE_INFO);
	/*
	 * Direct descriptors only: adding a buffer must not allocate memory,
	 * neither when we are asked to give up memory nor while we report what
	 * is free.
	 */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	/* A balloon names frames of the guest, which no IOMMU may translate. */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	return 0;
}

static const struct virtio_device_id fpb_ids[] = {
	{ VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID },
	{ },
};
MODULE_DEVICE_TABLE(virtio, fpb_ids);

static unsigned int fpb_features[] = {
	VIRTIO_BALLOON_F_MUST_TELL_HOST,
	VIRTIO_BALLOON_F_STATS_VQ,
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
	VIRTIO_BALLOON_F_PAGE_POISON,
	VIRTIO_BALLOON_F_REPORTING,
	VIRTIO_BALLOON_F_FREE_PAGE_INFO,
};

static struct virtio_driver fpb_driver = {
	.feature_table = fpb_features,
	.feature_table_size = ARRAY_SIZE(fpb_features),
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = fpb_ids,
	.validate = fpb_validate,
	.probe = fpb_probe,
	.remove = fpb_remove,
#ifdef HAVE_VIRTIO_DRIVER_SHUTDOWN
	.shutdown = fpb_shutdown,
#endif
	.config_changed = fpb_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = fpb_freeze,
	.restore = fpb_restore,
#endif
};
module_virtio_driver(fpb_driver);

MODULE_DESCRIPTION("Virtio balloon driver with free page info");
MODULE_LICENSE("GPL");
