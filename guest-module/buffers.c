// SPDX-License-Identifier: GPL-2.0
/*
 * The buffers that answers travel in.  They are allocated once, when the device
 * comes up or has grown, outside of all locks; a walk allocates nothing.
 */

#include <linux/gfp.h>
#include <linux/slab.h>

#include "freepage.h"

static void fpb_free_chunk(struct fpb_chunk *chunk)
{
	free_pages((unsigned long)chunk->bitmap, get_order(FPB_CHUNK_BYTES));
	kfree(chunk);
}

/* Have as many buffers as the window takes, if memory allows.  Outside of locks. */
void fpb_grow(struct fpb_info *info, unsigned long nr)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
	struct fpb_chunk *chunk;

	nr = min_t(unsigned long, nr, fpb_max_chunks(info));
	while (info->nr_chunks < nr) {
		chunk = kzalloc_obj(*chunk, gfp);
		if (!chunk)
			return;
		chunk->bitmap = (__le64 *)__get_free_pages(gfp, get_order(FPB_CHUNK_BYTES));
		if (!chunk->bitmap) {
			kfree(chunk);
			return;
		}
		info->chunks[info->nr_chunks++] = chunk;
	}
}

/* Collect up to nr buffers that the host does not hold. */
static unsigned int fpb_collect(struct fpb_info *info, struct fpb_pass *pass,
				unsigned int nr)
{
	unsigned int i;

	pass->nr_chunks = 0;
	spin_lock_irq(&info->vq_lock);
	for (i = 0; i < info->nr_chunks && pass->nr_chunks < nr; i++)
		if (!info->chunks[i]->with_host)
			pass->chunks[pass->nr_chunks++] = info->chunks[i];
	spin_unlock_irq(&info->vq_lock);
	return pass->nr_chunks;
}

/*
 * Buffers for the rest of the window.  The host may still hold some, from this
 * answer or from one that was given up; they are its until it returns them.
 * Waiting a moment for all of them saves walks; waiting for one is a must.
 */
bool fpb_get_chunks(struct fpb_info *info, const struct fpb_job *job, struct fpb_pass *pass,
		    unsigned long wanted)
{
	unsigned int nr = min_t(unsigned long, wanted, info->nr_chunks);

	if (fpb_collect(info, pass, nr) == nr)
		return true;
	info->counters.buffer_waits++;
	wait_event_idle_timeout(info->returned, fpb_collect(info, pass, nr) == nr ||
				fpb_superseded(info, job->generation), HZ / 10);
	wait_event_idle(info->returned, pass->nr_chunks || fpb_collect(info, pass, nr) ||
			fpb_superseded(info, job->generation));
	return !fpb_superseded(info, job->generation);
}

/* Wait for the buffer without a bitmap.  Returns whether the job is still wanted. */
bool fpb_get_bare(struct fpb_info *info, const struct fpb_job *job)
{
	wait_event_idle(info->returned, !READ_ONCE(info->bare->with_host) ||
			fpb_superseded(info, job->generation));
	return !fpb_superseded(info, job->generation);
}

void fpb_free_chunks(struct fpb_info *info)
{
	while (info->nr_chunks)
		fpb_free_chunk(info->chunks[--info->nr_chunks]);
}
