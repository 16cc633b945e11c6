// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's memory statistics: one buffer, which the host returns when it
 * wants it filled again.
 */

#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "freepage.h"

static unsigned int fpb_stats_fill(struct fpb_device *dev)
{
	struct virtio_balloon_stat *values = dev->stats.values;
	unsigned int nr = 0;
	struct sysinfo i;

#define put(what, value) do {							\
		values[nr].tag = cpu_to_virtio16(dev->vdev, VIRTIO_BALLOON_S_ ## what);	\
		values[nr++].val = cpu_to_virtio64(dev->vdev, value);		\
	} while (0)

#ifdef CONFIG_VM_EVENT_COUNTERS
	unsigned long events[NR_VM_EVENT_ITEMS];
	unsigned long __maybe_unused stalls = 0;
	int __maybe_unused zone;

	all_vm_events(events);
	put(SWAP_IN, (u64)events[PSWPIN] << PAGE_SHIFT);
	put(SWAP_OUT, (u64)events[PSWPOUT] << PAGE_SHIFT);
	put(MAJFLT, events[PGMAJFAULT]);
	put(MINFLT, events[PGFAULT]);
#ifdef CONFIG_HUGETLB_PAGE
	put(HTLB_PGALLOC, events[HTLB_BUDDY_PGALLOC]);
	put(HTLB_PGFAIL, events[HTLB_BUDDY_PGALLOC_FAIL]);
#endif
#ifdef VIRTIO_BALLOON_S_OOM_KILL
	put(OOM_KILL, events[OOM_KILL]);
#endif
#ifdef VIRTIO_BALLOON_S_ALLOC_STALL
	/* One event a zone, in the zones' order. */
	for (zone = 0; zone < MAX_NR_ZONES; zone++)
		stalls += events[ALLOCSTALL_NORMAL - ZONE_NORMAL + zone];
	put(ALLOC_STALL, stalls);
#ifdef HAVE_RECLAIM_NODE_STATS
#define reclaim(what)	((u64)global_node_page_state(what) << PAGE_SHIFT)
#else
#define reclaim(what)	((u64)events[what] << PAGE_SHIFT)
#endif
	put(ASYNC_SCAN, reclaim(PGSCAN_KSWAPD));
	put(DIRECT_SCAN, reclaim(PGSCAN_DIRECT));
	put(ASYNC_RECLAIM, reclaim(PGSTEAL_KSWAPD));
	put(DIRECT_RECLAIM, reclaim(PGSTEAL_DIRECT));
#undef reclaim
#endif
#endif
	si_meminfo(&i);
	put(MEMFREE, (u64)i.freeram * i.mem_unit);
	put(MEMTOT, (u64)i.totalram * i.mem_unit);
	put(AVAIL, (u64)si_mem_available() << PAGE_SHIFT);
	put(CACHES, (u64)global_node_page_state(NR_FILE_PAGES) << PAGE_SHIFT);
#undef put
	return nr;
}

static void fpb_stats_post(struct fpb_device *dev)
{
	struct virtqueue *vq = dev->vqs[FPB_VQ_STATS];
	unsigned int nr = fpb_stats_fill(dev);
	struct scatterlist sg;

	sg_init_one(&sg, dev->stats.values, nr * sizeof(dev->stats.values[0]));
	if (!virtqueue_add_outbuf(vq, &sg, 1, dev, GFP_KERNEL))
		virtqueue_kick(vq);
}

static void fpb_stats_update(struct work_struct *work)
{
	struct fpb_device *dev = container_of(to_delayed_work(work), struct fpb_device,
					      stats.update);
	unsigned int len;

	/* Not ours to fill until the host has returned it. */
	if (virtqueue_get_buf(dev->vqs[FPB_VQ_STATS], &len))
		fpb_stats_post(dev);
	fpb_done(dev, FPB_BUSY_STATS, &dev->stats.update);
}

void fpb_stats_requested(struct virtqueue *vq)
{
	struct fpb_device *dev = vq->vdev->priv;

	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_STATS_VQ))
		fpb_queue(dev, FPB_BUSY_STATS, &dev->stats.update, 0);
}

void fpb_stats_init(struct fpb_device *dev)
{
	INIT_DELAYED_WORK(&dev->stats.update, fpb_stats_update);
}

void fpb_stats_start(struct fpb_device *dev)
{
	if (virtio_has_feature(dev->vdev, VIRTIO_BALLOON_F_STATS_VQ))
		fpb_stats_post(dev);
}

void fpb_stats_stop(struct fpb_device *dev)
{
	cancel_delayed_work_sync(&dev->stats.update);
}
