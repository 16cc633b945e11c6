// SPDX-License-Identifier: GPL-2.0
/*
 * What is under way for the host, and how it ends: work that keeps the guest awake,
 * waits for what the host has of ours, and the stop of both.
 */

#include <linux/device.h>
#include <linux/virtio_config.h>

#include "freepage.h"

/*
 * Queue work that the host has asked for, unless the end has begun.  It is done
 * before the guest suspends.
 */
void fpb_queue(struct fpb_device *dev, unsigned int why, struct delayed_work *work,
	       unsigned long delay)
{
	struct fpb_busy *busy = &dev->busy;
	unsigned long flags;

	spin_lock_irqsave(&busy->lock, flags);
	if (!busy->stopping) {
		if (!busy->why)
			pm_stay_awake(&dev->vdev->dev);
		busy->why |= why;
		mod_delayed_work(system_freezable_wq, work, delay);
	}
	spin_unlock_irqrestore(&busy->lock, flags);
}

/* Called by the work that is done, unless it was queued again meanwhile. */
void fpb_done(struct fpb_device *dev, unsigned int why, struct delayed_work *work)
{
	struct fpb_busy *busy = &dev->busy;

	spin_lock_irq(&busy->lock);
	if (!delayed_work_pending(work) && busy->why) {
		busy->why &= ~why;
		if (!busy->why)
			pm_relax(&dev->vdev->dev);
	}
	spin_unlock_irq(&busy->lock);
}

/* From here on no callback queues work, and nothing keeps the guest awake. */
void fpb_stop_work(struct fpb_device *dev)
{
	struct fpb_busy *busy = &dev->busy;

	spin_lock_irq(&busy->lock);
	busy->stopping = true;
	if (busy->why)
		pm_relax(&dev->vdev->dev);
	busy->why = 0;
	spin_unlock_irq(&busy->lock);
}

void fpb_returned(struct virtqueue *vq)
{
	struct fpb_device *dev = vq->vdev->priv;

	wake_up_all(&dev->busy.returned);
}

/*
 * Let the host have what was added to a queue, and wait until it has returned it.
 * -EIO: the queue is broken, and nobody knows whether the host has seen it.
 */
int fpb_hand_over(struct fpb_device *dev, struct virtqueue *vq)
{
	void *buffer = NULL;
	unsigned int len;

	virtqueue_kick(vq);
	wait_event(dev->busy.returned, (buffer = virtqueue_get_buf(vq, &len)) ||
		   virtqueue_is_broken(vq));
	return buffer ? 0 : -EIO;
}

/* Wait until the device has nothing of ours any more, whatever it was given. */
void fpb_wait_for_reset(struct fpb_device *dev)
{
	wait_event(dev->busy.returned, READ_ONCE(dev->busy.reset));
}

static bool fpb_is_broken(const struct fpb_device *dev)
{
	unsigned int i;

	for (i = 0; i < FPB_NR_VQS; i++)
		if (dev->vqs[i] && virtqueue_is_broken(dev->vqs[i]))
			return true;
	return false;
}

/*
 * Whoever waits for a device that is broken, or gone, waits for ever: nobody calls
 * the driver when a queue breaks.  So wake them before anything waits for them, and
 * not before the device has let go of what it was given.
 */
void fpb_end_waits(struct fpb_device *dev)
{
	if (!fpb_is_broken(dev))
		return;
	virtio_reset_device(dev->vdev);
	WRITE_ONCE(dev->busy.reset, true);
	wake_up_all(&dev->busy.returned);
}

void fpb_busy_init(struct fpb_device *dev)
{
	spin_lock_init(&dev->busy.lock);
	init_waitqueue_head(&dev->busy.returned);
}

void fpb_busy_start(struct fpb_device *dev)
{
	dev->busy.stopping = false;
	dev->busy.reset = false;
}
