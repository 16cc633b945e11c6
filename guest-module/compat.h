/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels, by the answers of probes/. */
#ifndef FREEPAGE_COMPAT_H
#define FREEPAGE_COMPAT_H

#include <linux/migrate.h>
#include <linux/mmzone.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#ifndef HAVE_SANITY
#error "probes/sanity.c did not compile: the probes of this build say nothing"
#endif

#ifdef HAVE_BALLOON_HEADER
#include <linux/balloon.h>
#else
#include <linux/balloon_compaction.h>
#endif

/* One name for it before it was needed for more than compaction, another since. */
#if defined(CONFIG_BALLOON_COMPACTION) || defined(CONFIG_BALLOON_MIGRATION)
#define FPB_MIGRATES_BALLOON
#endif

/*
 * When a page of the balloon is moved, either the driver changes the balloon's
 * list, or the common part does (then it counts pages as well).  Should this
 * kernel do it in a third way, then the host would be told of pages that no list
 * has, so nothing may be built.
 */
#ifdef FPB_MIGRATES_BALLOON
#if defined(HAVE_BALLOON_PAGES_LOCK)
#if defined(HAVE_BALLOON_PAGE_FINALIZE)
#define fpb_finalize_page	balloon_page_finalize
#elif defined(HAVE_BALLOON_PAGE_DELETE)
#define fpb_finalize_page	balloon_page_delete
#else
#error "no known way for a page that was moved to leave this kernel's balloon: teach compat.h"
#endif
#elif !defined(HAVE_BALLOON_COUNTS_PAGES)
#error "who changes the balloon's list when a page is moved in this kernel? teach compat.h"
#endif
#endif

/* The counters of reclaim: events first, statistics of a node since. */
#if defined(HAVE_RECLAIM_EVENTS) == defined(HAVE_RECLAIM_NODE_STATS)
#error "are this kernel's counters of reclaim events, or statistics of a node? teach compat.h"
#endif

#ifndef kzalloc_obj
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#endif

#ifdef HAVE_BUDDY_LIST
#define fpb_buddy_link	buddy_list
#else
#define fpb_buddy_link	lru
#endif

#ifndef HAVE_ZONE_LOCK_MEMBER
#error "the lock of this kernel's free lists is not zone->lock: teach compat.h its name"
#endif

/*
 * The largest order was once called MAX_ORDER - 1, then MAX_ORDER, then
 * MAX_PAGE_ORDER.  The array has always had the right number of elements.
 */
#define FPB_NR_ORDERS	ARRAY_SIZE(((struct zone *)NULL)->free_area)

/* What the device offers, whether we take it or not: it numbers queues by this. */
static inline u64 fpb_offered_features(struct virtio_device *vdev)
{
#ifdef HAVE_VIRTIO_GET_FEATURES
	/* As many words as any kernel that has the helper may fill in. */
	u64 features[8] = {};

	virtio_get_features(vdev, features);
	return features[0];
#else
	return vdev->config->get_features(vdev);
#endif
}

static inline int fpb_find_vqs(struct virtio_device *vdev, unsigned int nr,
			       struct virtqueue **vqs, vq_callback_t **callbacks,
			       const char *const *names)
{
#ifdef HAVE_VIRTQUEUE_INFO
	struct virtqueue_info info[8] = {};
	unsigned int i;

	if (nr > ARRAY_SIZE(info))
		return -EINVAL;
	for (i = 0; i < nr; i++) {
		info[i].name = names[i];
		info[i].callback = callbacks[i];
	}
	return virtio_find_vqs(vdev, nr, vqs, info, NULL);
#else
	return virtio_find_vqs(vdev, nr, vqs, callbacks, names, NULL);
#endif
}

#endif /* FREEPAGE_COMPAT_H */
