/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/*
 * Free page info for the virtio balloon: what travels between device and driver.
 *
 * The guest's driver and QEMU's device are built from this one file.  The rule
 * that all others serve is this:
 *
 *   The answer to a request lists page frames each of which was free at some
 *   time between the request and the answer.  The host skips a listed page
 *   only if it has seen no write to it since before the request left.
 *
 * So an answer may be late, partial or out of date and loses no data: a page
 * that was free after the request and has not been written since holds
 * nothing that anybody will read and expect to be there.
 *
 * All fields are little endian.  Nothing here has padding.
 */
#ifndef _LINUX_VIRTIO_BALLOON_FREE_PAGE_INFO_H
#define _LINUX_VIRTIO_BALLOON_FREE_PAGE_INFO_H

#include <linux/types.h>

/*
 * Device specific feature bits are 0 to 23 and 50 to 127.  Upstream counts
 * from the bottom; a private extension stays at the top of what QEMU's 64 bit
 * feature words can hold.  Needs VIRTIO_F_VERSION_1.
 */
#define VIRTIO_BALLOON_F_FREE_PAGE_INFO	60

/* Commands, device to driver. */
/* The buffer comes back unused, as the VM stops: post it again. */
#define VFPI_CMD_NONE			0
/* Walk the free lists and answer. */
#define VFPI_CMD_REQUEST		1

/*
 * Device to driver, in the one device-writable buffer that the driver keeps
 * on the queue.  The driver posts the buffer again before it starts to walk,
 * so that a newer request can overtake the older one.
 */
struct vfpi_request {
	__le32 cmd;
	__le32 page_shift;	/* log2 of the size of a frame: 12 */
	__le64 id;		/* never used twice, by no host; not zero */
	__le64 start_pfn;	/* the window of guest frames that is asked for */
	__le64 nr_pfns;
};

/* The last chunk of this answer; it may carry no bits. What follows is stale. */
#define VFPI_RESP_DONE			(1 << 0)
/* Not every free page of the window is listed. Harmless, but worth counting. */
#define VFPI_RESP_PARTIAL		(1 << 1)
/*
 * What is in a free page matters to the guest: it frees pages as zeros and
 * does not clear them again (init_on_free), or checks a poison pattern.  A
 * page that was already sent holds its old content on the destination and
 * must not be skipped.
 */
#define VFPI_RESP_CONTENT_MATTERS	(1 << 2)
#define VFPI_RESP_FLAGS \
	(VFPI_RESP_DONE | VFPI_RESP_PARTIAL | VFPI_RESP_CONTENT_MATTERS)

/*
 * Driver to device: this header, then the bitmap, in one device-readable
 * chain.  Bit n of the bitmap (little endian 64 bit words, lowest bit first)
 * stands for frame start_pfn + n.  The bitmap is exactly
 * DIV_ROUND_UP(nr_bits, 64) words long; bits from nr_bits on are zero.
 */
struct vfpi_response {
	__le64 id;		/* of the request that this answers */
	__le64 start_pfn;	/* a multiple of 64 */
	__le32 nr_bits;		/* at most VFPI_MAX_BITS; 0 with DONE: no bitmap */
	__le16 page_shift;	/* 12 */
	__le16 flags;
	__le64 seq;		/* of this chunk in its answer, from 0 */
};

/* One chunk covers at most 1 GiB of 4 KiB frames: 32 KiB of bitmap. */
#define VFPI_MAX_BITS			(1U << 18)

#endif /* _LINUX_VIRTIO_BALLOON_FREE_PAGE_INFO_H */
