/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio balloon driver that also tells the host, on request, which pages of
 * the guest are free, so that a live migration can leave them behind.
 *
 *   main.c       the device: features, queues, life and death
 *   busy.c       what is under way for the host, and how it ends
 *   balloon.c    inflate and deflate
 *   stats.c      the guest's memory statistics
 *   reporting.c  upstream's free page reporting
 *   info.c       free page info: requests come in, answers go out
 *   buffers.c    free page info: what answers travel in
 *   walk.c       free page info: the walk over the free lists, and why it is right
 *   frames.h     free page info: how many frames there are
 *   window.h     free page info: from a block of frames to bits
 *   debugfs.c    counters
 *   hold.h, .c   controls for tests, compiled out by default: where a walk stands
 *   misbehave.h, .c  likewise: how the driver goes wrong
 *   test.h, .c   likewise: their files, and what else a test can do
 */
#ifndef FREEPAGE_H
#define FREEPAGE_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/page_reporting.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "free_page_info.h"
#include "compat.h"

/* The balloon counts in units of 4 KiB, whatever a page of ours is. */
#define FPB_UNITS_PER_PAGE	(PAGE_SIZE >> VIRTIO_BALLOON_PFN_SHIFT)
#define FPB_MAX_PFNS		256

/* Entries of a free list that one hold of a zone's lock may visit. */
#define FPB_HOLD_ENTRIES	512
/* Buffers for answers: 32 GiB of guest memory in one pass, 1 MiB at most. */
#define FPB_MAX_CHUNKS		32
#define FPB_CHUNK_BYTES		(VFPI_MAX_BITS / 8)

#include "hold.h"
#include "misbehave.h"

/* Queues, in the order in which the device numbers those that it offers. */
enum fpb_queue {
	FPB_VQ_INFLATE,
	FPB_VQ_DEFLATE,
	FPB_VQ_STATS,
	FPB_VQ_HINT,		/* upstream's free page hint: never used here */
	FPB_VQ_REPORTING,
	FPB_VQ_INFO,
	FPB_NR_VQS
};

/* Inflate, deflate. */
struct fpb_balloon {
	struct mutex lock;		/* nr_pages, pfns and both queues */
	struct balloon_dev_info pages;	/* has a lock of its own */
	unsigned long nr_pages;
	unsigned int nr_pfns;
	__virtio32 pfns[FPB_MAX_PFNS];
	struct delayed_work resize;
	struct notifier_block oom;
};

struct fpb_stats {
	struct virtio_balloon_stat values[VIRTIO_BALLOON_S_NR];
	struct delayed_work update;
};

/*
 * One bounded piece of an answer.  Header and bitmap are read by the host from
 * virtqueue_add until the buffer comes back: nobody touches either while
 * with_host is set.
 */
struct fpb_chunk {
	struct vfpi_response header;
	__le64 *bitmap;			/* FPB_CHUNK_BYTES, physically contiguous */
	bool with_host;			/* under vq_lock */
};

/* Each has one writer: the worker, but for those marked. */
struct fpb_counters {
	u64 requests;			/* written by the queue's callback */
	u64 requests_none;		/* likewise */
	u64 requests_invalid;
	u64 repost_errors;		/* likewise */
	u64 chunks;
	u64 answers;
	u64 partial_answers;
	u64 send_errors;
	u64 buffer_waits;
	u64 pages_reported;
	u64 superseded;
	u64 passes;
	u64 holds;
	u64 entries;
	u64 restarts;
	u64 lists_abandoned;
	u64 last_id;
	u64 last_pages;
	u64 last_entries;
	u64 last_holds;
	u64 last_walk_ns;
	u64 last_hold_ns;		/* the longest hold of the last walk */
	u64 last_answer_ns;		/* from the request to its last chunk */
	u64 max_hold_ns;
	u64 max_hold_entries;
	u64 max_walk_ns;
};

#define FPB_HOLD_BUCKETS	24	/* of 2^n to 2^(n+1) microseconds; the first from 0 */

struct fpb_info {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	spinlock_t vq_lock;		/* the queue, with_host, pending */
	struct vfpi_request *request;	/* the one buffer that the device writes */
	struct vfpi_request pending;	/* the newest request that was not begun */
	bool has_pending;
	u64 pending_since;		/* ktime, ns */
	/* Counts requests, and the stop: who sees it change gives up its walk. */
	atomic_t generation;
	bool stopping;
	bool content_matters;
	wait_queue_head_t returned;
	struct workqueue_struct *workqueue;
	struct work_struct work;

	struct fpb_chunk *chunks[FPB_MAX_CHUNKS];
	unsigned int nr_chunks;
	struct fpb_chunk *bare;		/* a header without a bitmap, which is always there */

	struct notifier_block memory;
	spinlock_t offline_lock;	/* offline_count; see fpb_cursor_valid() */
	unsigned long offline_count;

	struct fpb_holds test;		/* nothing, but in a build for tests */
	struct fpb_misbehaving misbehaving;
	struct fpb_counters counters;
	u64 free_blocks[FPB_NR_ORDERS];	/* visited by the last walk, by order */
	u64 hold_times[FPB_HOLD_BUCKETS];
};

#define FPB_BUSY_RESIZE		BIT(0)
#define FPB_BUSY_STATS		BIT(1)

/* What is under way for the host. */
struct fpb_busy {
	spinlock_t lock;		/* orders stopping against queueing work; why */
	bool stopping;
	unsigned int why;		/* what keeps the guest from suspending: FPB_BUSY_* */
	wait_queue_head_t returned;	/* buffers of the queues for inflate, deflate, reporting */
	bool reset;			/* the device has nothing of ours any more */
};

struct fpb_device {
	struct virtio_device *vdev;
	struct virtqueue *vqs[FPB_NR_VQS];	/* NULL: not offered */
	struct fpb_busy busy;
	struct fpb_balloon balloon;
	struct fpb_stats stats;
	struct page_reporting_dev_info reporting;
	struct fpb_info info;
	struct notifier_block reboot;	/* where virtio drivers have no shutdown */
	struct dentry *debugfs;
};

/* A request being answered: by the id, and by what makes it out of date. */
struct fpb_job {
	u64 id;
	unsigned long start, end;	/* frames, end excluded */
	int generation;
	u64 since;			/* ktime, ns */
	u64 seq;
	bool partial;
};

/* One run over the free lists, for the part of a window that the buffers hold. */
struct fpb_pass {
	struct fpb_info *info;
	int generation;
	unsigned long start, end;	/* only frames in here are set */
	unsigned long base;		/* the frame of the first chunk's first bit */
	unsigned int chunk_bits;	/* frames that a chunk stands for */
	struct fpb_chunk *chunks[FPB_MAX_CHUNKS];
	unsigned int nr_chunks;
	unsigned long entries;		/* visited so far */
	bool partial;			/* something was left out */
};

void fpb_busy_init(struct fpb_device *dev);
void fpb_busy_start(struct fpb_device *dev);
void fpb_queue(struct fpb_device *dev, unsigned int why, struct delayed_work *work,
	       unsigned long delay);
void fpb_done(struct fpb_device *dev, unsigned int why, struct delayed_work *work);
void fpb_stop_work(struct fpb_device *dev);
void fpb_returned(struct virtqueue *vq);
int fpb_hand_over(struct fpb_device *dev, struct virtqueue *vq);
void fpb_wait_for_reset(struct fpb_device *dev);
void fpb_end_waits(struct fpb_device *dev);

void fpb_balloon_init(struct fpb_device *dev);
int fpb_balloon_start(struct fpb_device *dev);
void fpb_balloon_stop(struct fpb_device *dev);
void fpb_balloon_empty(struct fpb_device *dev);
void fpb_balloon_config_changed(struct fpb_device *dev);

void fpb_stats_init(struct fpb_device *dev);
void fpb_stats_start(struct fpb_device *dev);
void fpb_stats_stop(struct fpb_device *dev);
void fpb_stats_requested(struct virtqueue *vq);

int fpb_reporting_start(struct fpb_device *dev);
void fpb_reporting_stop(struct fpb_device *dev);

int fpb_info_init(struct fpb_device *dev);
void fpb_info_free(struct fpb_device *dev);
int fpb_info_start(struct fpb_device *dev);
void fpb_info_stop(struct fpb_device *dev);
void fpb_info_returned(struct virtqueue *vq);

void fpb_grow(struct fpb_info *info, unsigned long nr);
bool fpb_get_chunks(struct fpb_info *info, const struct fpb_job *job, struct fpb_pass *pass,
		    unsigned long wanted);
bool fpb_get_bare(struct fpb_info *info, const struct fpb_job *job);
void fpb_free_chunks(struct fpb_info *info);

int fpb_walk_init(struct fpb_info *info);
void fpb_walk_exit(struct fpb_info *info);
void fpb_walk(struct fpb_pass *pass);

/* Has a newer request come, or the end, since the job was taken? */
static inline bool fpb_superseded(const struct fpb_info *info, int generation)
{
	return atomic_read(&info->generation) != generation;
}

void fpb_debugfs_add(struct fpb_device *dev);
void fpb_debugfs_remove(struct fpb_device *dev);

#endif /* FREEPAGE_H */
