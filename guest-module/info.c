// SPDX-License-Identifier: GPL-2.0
/*
 * Free page info: a request comes in, an answer goes out, chunk by chunk.
 *
 * Two contexts.  The queue's callback takes what the host returns: the request
 * buffer, which it copies and posts again at once, and chunks of answers, which
 * become free.  A worker walks and sends.  The callback never waits for the
 * worker, so a newer request always gets through, and the worker gives up what
 * it does for an older one.
 *
 * Nothing here waits for the host to have understood anything.  A migration may
 * end with a request that nobody wants answered any more: then the answer goes
 * to a device that ignores its id.
 */

#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "frames.h"
#include "freepage.h"
#include "test.h"

/* A chunk takes one descriptor for its header and one for its bitmap. */
#define FPB_CHUNK_DESCRIPTORS	2

/* Give the device the buffer for its next request.  Called with vq_lock held. */
static void fpb_post_request(struct fpb_info *info)
{
	struct scatterlist sg;

	lockdep_assert_held(&info->vq_lock);
	sg_init_one(&sg, info->request, sizeof(*info->request));
	/*
	 * There is room: the buffer's own descriptor was freed under this same
	 * hold of the lock, or nothing was ever added.
	 */
	if (virtqueue_add_inbuf(info->vq, &sg, 1, info->request, GFP_ATOMIC))
		info->counters.repost_errors++;
}

static void fpb_take_request(struct fpb_info *info, unsigned int len)
{
	/*
	 * A buffer that comes back short was not written: the device is just
	 * handing it back, and what it holds is an older request.
	 */
	if (len < sizeof(*info->request) ||
	    info->request->cmd != cpu_to_le32(VFPI_CMD_REQUEST)) {
		info->counters.requests_none++;
	} else {
		/* From here on the device may write the buffer again: copy. */
		info->pending = *info->request;
		info->pending_since = ktime_get_ns();
		info->has_pending = true;
		info->counters.requests++;
		if (!fpb_misbehaves(info, FPB_IGNORE_NEWER))
			atomic_inc(&info->generation);
		if (fpb_misbehaves(info, FPB_KEEP_REQUEST))
			return;
	}
	fpb_post_request(info);
}

void fpb_info_returned(struct virtqueue *vq)
{
	struct fpb_device *dev = vq->vdev->priv;
	struct fpb_info *info = &dev->info;
	struct fpb_chunk *chunk;
	bool posted = false, notify;
	unsigned long flags;
	unsigned int len;
	void *buffer;

	spin_lock_irqsave(&info->vq_lock, flags);
	if (info->stopping) {
		spin_unlock_irqrestore(&info->vq_lock, flags);
		return;
	}
	do {
		virtqueue_disable_cb(vq);
		while ((buffer = virtqueue_get_buf(vq, &len))) {
			if (buffer == info->request) {
				fpb_take_request(info, len);
				posted = true;
			} else {
				chunk = buffer;
				chunk->with_host = false;
			}
		}
	} while (!virtqueue_enable_cb(vq));
	notify = posted && virtqueue_kick_prepare(vq);
	if (info->has_pending)
		queue_work(info->workqueue, &info->work);
	spin_unlock_irqrestore(&info->vq_lock, flags);
	if (notify)
		virtqueue_notify(vq);
	wake_up_all(&info->returned);
}

/* Take the newest request.  Older ones were never begun, and never will be. */
static bool fpb_next_job(struct fpb_info *info, struct fpb_job *job)
{
	u64 start, nr, limit = fpb_end_frame();
	struct vfpi_request request;

	spin_lock_irq(&info->vq_lock);
	if (!info->has_pending || info->stopping) {
		spin_unlock_irq(&info->vq_lock);
		return false;
	}
	request = info->pending;
	info->has_pending = false;
	job->since = info->pending_since;
	job->generation = atomic_read(&info->generation);
	spin_unlock_irq(&info->vq_lock);

	job->id = le64_to_cpu(request.id);
	job->seq = 0;
	job->partial = false;
	start = min(le64_to_cpu(request.start_pfn), limit);
	nr = min(le64_to_cpu(request.nr_pfns), limit - start);
	job->start = start;
	job->end = start + nr;
	if (le32_to_cpu(request.page_shift) != VIRTIO_BALLOON_PFN_SHIFT) {
		/* Frames of another size than the protocol's: no bit would mean anything. */
		info->counters.requests_invalid++;
		job->start = 0;
		job->end = 0;
		job->partial = true;
	}
	return true;
}

/* Hand one chunk over.  False: the job is out of date, or the device is dead. */
static bool fpb_send(struct fpb_info *info, struct fpb_job *job, struct fpb_chunk *chunk,
		     unsigned long start, unsigned int nr_bits, u16 flags)
{
	struct scatterlist sg[FPB_CHUNK_DESCRIPTORS];
	struct vfpi_response *header = &chunk->header;
	unsigned int nr_sg = nr_bits ? 2 : 1;
	bool notify;
	int err;

	if (info->content_matters)
		flags |= VFPI_RESP_CONTENT_MATTERS;
	header->id = cpu_to_le64(job->id);
	header->start_pfn = cpu_to_le64(start);
	header->nr_bits = cpu_to_le32(nr_bits);
	header->page_shift = cpu_to_le16(VIRTIO_BALLOON_PFN_SHIFT);
	header->flags = cpu_to_le16(flags);
	header->seq = cpu_to_le64(job->seq++);
	fpb_test_header(info, header);
	sg_init_table(sg, nr_sg);
	sg_set_buf(&sg[0], header, sizeof(*header));
	if (nr_bits)
		sg_set_buf(&sg[1], fpb_test_bitmap(info, chunk->bitmap),
			   fpb_test_words(info, nr_bits) * sizeof(__le64));

	for (;;) {
		if (fpb_superseded(info, job->generation))
			return false;
		spin_lock_irq(&info->vq_lock);
		err = virtqueue_add_outbuf(info->vq, sg, nr_sg, chunk, GFP_ATOMIC);
		if (!err)
			chunk->with_host = true;
		notify = !err && !fpb_test_unnoticed(info, flags) &&
			 virtqueue_kick_prepare(info->vq);
		spin_unlock_irq(&info->vq_lock);
		if (notify)
			virtqueue_notify(info->vq);
		if (!err)
			break;
		if (err != -ENOSPC) {
			info->counters.send_errors++;
			return false;
		}
		/* Full: the host must return something first. */
		info->counters.buffer_waits++;
		wait_event_idle(info->returned, READ_ONCE(info->vq->num_free) >= nr_sg ||
				fpb_superseded(info, job->generation));
	}
	info->counters.chunks++;
	if (flags & VFPI_RESP_DONE) {
		info->counters.answers++;
		info->counters.last_answer_ns = ktime_get_ns() - job->since;
	}
	return true;
}

static unsigned long fpb_count(const struct fpb_chunk *chunk, unsigned int nr_bits)
{
	unsigned int i, words = DIV_ROUND_UP(nr_bits, 64);
	unsigned long nr = 0;

	for (i = 0; i < words; i++)
		nr += hweight64((__force u64)chunk->bitmap[i]);
	return nr;
}

/* Send one of a pass's chunks: its bits of [start, start + nr_bits), and whether it is the last. */
static bool fpb_send_chunk(struct fpb_info *info, struct fpb_job *job, struct fpb_chunk *chunk,
			   unsigned long start, unsigned int nr_bits)
{
	unsigned long nr = fpb_count(chunk, nr_bits);
	bool last = start + nr_bits == job->end;
	u16 flags = 0;

	/* A chunk without a bit stays here, but for the last. */
	if (!nr && !last)
		return true;
	if (last)
		flags |= VFPI_RESP_DONE | (job->partial ? VFPI_RESP_PARTIAL : 0);
	if (fpb_test_drops(info, last))
		return true;
	if (!fpb_send(info, job, chunk, start, nr ? nr_bits : 0, flags))
		return false;
	if (fpb_misbehaves(info, FPB_DUPLICATE))
		fpb_send(info, job, chunk, start, nr ? nr_bits : 0, flags);
	info->counters.pages_reported += nr;
	info->counters.last_pages += nr;
	return true;
}

static bool fpb_send_pass(struct fpb_info *info, struct fpb_job *job,
			  const struct fpb_pass *pass)
{
	unsigned int i, nr = DIV_ROUND_UP(pass->end - pass->base, pass->chunk_bits);

	for (i = 0; i < nr; i++) {
		unsigned int n = fpb_test_turn(info, i, nr);
		unsigned long start = pass->base + (unsigned long)n * pass->chunk_bits;

		if (!fpb_send_chunk(info, job, pass->chunks[n], start,
				    min_t(unsigned long, pass->end - start, pass->chunk_bits)))
			return false;
	}
	return true;
}

/* The last chunk without a bit: of a window without a frame, or for want of a buffer. */
static void fpb_answer_nothing(struct fpb_info *info, struct fpb_job *job, unsigned long start)
{
	if (fpb_get_bare(info, job))
		fpb_send(info, job, info->bare, round_down(start, 64), 0,
			 VFPI_RESP_DONE | (job->partial ? VFPI_RESP_PARTIAL : 0));
}

static void fpb_answer(struct fpb_info *info, struct fpb_job *job)
{
	struct fpb_counters *counters = &info->counters;
	unsigned long at = job->start, wanted, room;
	struct fpb_pass pass = {
		.info = info,
		.generation = job->generation,
		.chunk_bits = fpb_chunk_bits(info),
	};
	u64 began;

	fpb_test_begin(info, job);
	counters->last_id = job->id;
	counters->last_pages = 0;
	counters->last_entries = 0;
	counters->last_holds = 0;
	counters->last_hold_ns = 0;
	counters->last_walk_ns = 0;
	memset(info->free_blocks, 0, sizeof(info->free_blocks));
	if (at == job->end) {
		fpb_answer_nothing(info, job, at);
		return;
	}
	while (at < job->end) {
		pass.base = round_down(at, 64);
		wanted = DIV_ROUND_UP(job->end - pass.base, pass.chunk_bits);
		fpb_grow(info, wanted);
		if (!info->nr_chunks) {
			job->partial = true;
			fpb_answer_nothing(info, job, pass.base);
			at = job->end;
			break;
		}
		if (!fpb_get_chunks(info, job, &pass, min(wanted, fpb_pass_chunks(info))))
			break;
		pass.start = at;
		room = (unsigned long)pass.nr_chunks * pass.chunk_bits;
		pass.end = min(job->end, pass.base + room);
		fpb_test_stand(info, job->generation, FPB_BEFORE_WALK);
		began = ktime_get_ns();
		fpb_walk(&pass);
		counters->last_walk_ns += ktime_get_ns() - began;
		counters->max_walk_ns = max(counters->max_walk_ns, counters->last_walk_ns);
		counters->passes++;
		job->partial |= pass.partial;
		fpb_test_stand(info, job->generation, FPB_AFTER_WALK);
		if (fpb_superseded(info, job->generation) || !fpb_send_pass(info, job, &pass))
			break;
		at = pass.end;
	}
	if (at == job->end && job->partial)
		counters->partial_answers++;
	if (at < job->end && fpb_superseded(info, job->generation))
		counters->superseded++;
}

static void fpb_info_work(struct work_struct *work)
{
	struct fpb_info *info = container_of(work, struct fpb_info, work);
	struct fpb_job job;

	fpb_test_work(info, fpb_walk);
	while (fpb_next_job(info, &job))
		fpb_answer(info, &job);
}

int fpb_info_init(struct fpb_device *dev)
{
	struct fpb_info *info = &dev->info;
	int err = -ENOMEM;

	info->vdev = dev->vdev;
	spin_lock_init(&info->vq_lock);
	init_waitqueue_head(&info->returned);
	INIT_WORK(&info->work, fpb_info_work);
	fpb_test_init(info);
	info->stopping = true;
	info->request = kzalloc_obj(*info->request, GFP_KERNEL);
	/*
	 * A queue of its own: a walk may wait for the host, and must neither
	 * hold up other work nor be held up by it.
	 */
	info->workqueue = alloc_workqueue("freepage_balloon", WQ_UNBOUND | WQ_HIGHPRI, 1);
	info->bare = kzalloc_obj(*info->bare, GFP_KERNEL);
	if (!info->request || !info->workqueue || !info->bare)
		goto out;
	err = fpb_walk_init(info);
	if (!err)
		return 0;
out:
	if (info->workqueue)
		destroy_workqueue(info->workqueue);
	kfree(info->bare);
	kfree(info->request);
	return err;
}

/* The device was reset: nothing of ours is with the host any more. */
void fpb_info_free(struct fpb_device *dev)
{
	struct fpb_info *info = &dev->info;

	fpb_walk_exit(info);
	destroy_workqueue(info->workqueue);
	fpb_test_exit(info);
	fpb_free_chunks(info);
	kfree(info->bare);
	kfree(info->request);
}

int fpb_info_start(struct fpb_device *dev)
{
	struct fpb_info *info = &dev->info;
	unsigned int i;
	bool notify;

	if (!virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_FREE_PAGE_INFO))
		return 0;
	info->vq = dev->vqs[FPB_VQ_INFO];
	if (!info->vq || virtqueue_get_vring_size(info->vq) < 1 + FPB_CHUNK_DESCRIPTORS) {
		dev_err(&dev->vdev->dev, "the free page info queue is too small\n");
		return -ENOSPC;
	}
	info->content_matters = want_init_on_free();
	/* None at all is no reason to go without a balloon: each request tries again. */
	fpb_grow(info, DIV_ROUND_UP(fpb_end_frame(), VFPI_MAX_BITS));

	spin_lock_irq(&info->vq_lock);
	/* After a suspend: the reset has given all of them back. */
	for (i = 0; i < info->nr_chunks; i++)
		info->chunks[i]->with_host = false;
	info->bare->with_host = false;
	info->has_pending = false;
	info->stopping = false;
	fpb_post_request(info);
	notify = virtqueue_kick_prepare(info->vq);
	spin_unlock_irq(&info->vq_lock);
	if (notify)
		virtqueue_notify(info->vq);
	return 0;
}

void fpb_info_stop(struct fpb_device *dev)
{
	struct fpb_info *info = &dev->info;

	spin_lock_irq(&info->vq_lock);
	info->stopping = true;
	info->has_pending = false;
	/* No generation is current any more: the worker gives up. */
	atomic_inc(&info->generation);
	spin_unlock_irq(&info->vq_lock);
	wake_up_all(&info->returned);
	cancel_work_sync(&info->work);
}
