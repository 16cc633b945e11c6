// SPDX-License-Identifier: GPL-2.0
/*
 * The walk over the free lists.
 *
 * Why a bitmap that is out of date loses no data
 * ----------------------------------------------
 * By the time that the host reads a bit, the page that it stands for may long
 * be in use again.  That is expected, and harmless.  A bit claims no more than:
 *
 *	at some instant after the request had reached us and before the answer
 *	left, this frame was on a free list; so nobody owned what was in it.
 *
 * Before the request leaves, the host has begun to watch every page of the
 * guest for writes.  It leaves a page behind only if its bit is set and no write
 * to it was seen since.  Take such a page, and any moment around the walk:
 *
 *  - It was in use before, and freed before we saw it.  Whoever owned it has
 *    given up its contents.
 *  - It is allocated after we saw it, and written.  The host sees the write, and
 *    sends the page, whatever the bitmap says.
 *  - It is allocated after we saw it, and only read.  Then its owner reads what
 *    the last owner left, about which nothing was ever promised; on the
 *    destination it reads zeros.  But see the third case below.
 *  - It is not seen at all: on a per-cpu list, on its way between lists, left
 *    out because this walk was cut short.  Then it is sent.  Omission is safe.
 *  - It is seen twice.  The bit is set twice.
 *
 * So the walk need not stop the world, the bitmap need not be a snapshot, and
 * nothing has to be held, or allocated, until the host is done.
 *
 * When it would lose data
 * -----------------------
 *  1. A bit is set for a frame that was in use, with contents that somebody
 *     needs, during all of the time between request and answer.  Nobody writes
 *     to it, so nothing saves it.  Hence: the walk starts after the request was
 *     taken, never before; the bitmap starts from zero each time, and never
 *     carries bits from one request to another; a bit is set only under the
 *     lock of the zone, for a page that is on a list of that zone under this
 *     very hold of the lock, and for as many frames as its order then says;
 *     the answer carries the id of the request that the walk was made for; a
 *     buffer that the host may still read is not touched.
 *  2. The host does not see all writes: it started to watch only after the
 *     request had left, or threw away what it saw between request and answer
 *     and used the answer nevertheless.  That is the host's part of the
 *     bargain; the id lets it tell an answer to an older request.
 *  3. Somebody relies on what is in a free page.  With init_on_free the
 *     allocator clears pages when they are freed and hands them out as zeros
 *     without looking: a page that was never sent is zeros at the destination
 *     too, but one that was sent earlier still holds its old contents there, so
 *     the answer says that contents matter.  Page poisoning leaves a pattern
 *     and checks it: then this driver does not take part at all.
 *
 * What it costs the guest
 * -----------------------
 * The zone's lock is held with interrupts off for at most FPB_HOLD_ENTRIES
 * entries, then dropped.  Nothing is allocated, written or pinned.
 */

#include <linux/ktime.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/page-isolation.h>
#include <linux/sched.h>

#include "frames.h"
#include "freepage.h"
#include "window.h"

/* Where to go on in a list after the lock was dropped. */
struct fpb_cursor {
	struct page *page;		/* the last one visited, or NULL */
	unsigned long pfn;
	unsigned long offline_count;
};

/*
 * May the walk go on from where it was?  Called with the zone's lock held.
 *
 * While the lock was dropped, the page may have been allocated, merged into a
 * larger block, split, freed again onto the same or another list, or its memory
 * taken offline and its struct page with it.  What it takes to go on is that
 * its links are those of a free list of this zone and order, now:
 *
 *  - Its struct page is there to be looked at.  No memory began or finished to
 *    go offline since it was visited: offline_count is raised under
 *    offline_lock by the notifier, which the walk holds around each hold of the
 *    zone's lock.  If the count is unchanged, the notifier has not been through,
 *    and will not get through before we let go; struct pages go only after it.
 *    pfn_to_online_page() alone would leave a gap between its answer and our
 *    use of it.
 *  - It belongs to this zone, so the lock that we hold is the one that guards
 *    its state; and it is a buddy page, so it is the first of a free block and
 *    is linked on a list; and it has the order that it had, so that list is one
 *    of this free area.  It may be a list of another migrate type: so the walk
 *    stops at the head of any of them.
 *
 * That the page was away in between does no harm.  From a new place in the list
 * the walk may see entries again, or miss some, and both are safe.
 */
static bool fpb_cursor_valid(const struct fpb_info *info, const struct zone *zone,
			     unsigned int order, const struct fpb_cursor *cursor)
{
	if (!cursor->page || cursor->offline_count != info->offline_count)
		return false;
	return pfn_to_online_page(cursor->pfn) == cursor->page &&
	       page_zone(cursor->page) == zone && PageBuddy(cursor->page) &&
	       page_private(cursor->page) == order;
}

static bool fpb_is_head(const struct free_area *area, const struct list_head *entry)
{
	return entry >= area->free_list && entry < area->free_list + MIGRATE_TYPES;
}

static void fpb_account_hold(struct fpb_info *info, u64 began, unsigned int entries)
{
	struct fpb_counters *counters = &info->counters;
	u64 took = ktime_get_ns() - began;
	unsigned int bucket = fls64(div_u64(took, 1000));

	bucket = bucket ? bucket - 1 : 0;
	info->hold_times[min_t(unsigned int, bucket, FPB_HOLD_BUCKETS - 1)]++;
	counters->holds++;
	counters->entries += entries;
	counters->last_holds++;
	counters->last_entries += entries;
	counters->last_hold_ns = max(counters->last_hold_ns, took);
	counters->max_hold_ns = max(counters->max_hold_ns, took);
	counters->max_hold_entries = max_t(u64, counters->max_hold_entries, entries);
}

/*
 * One hold: visit entries of one list until its end, or until FPB_HOLD_ENTRIES,
 * or until nothing is left of the list's allowance.  Returns true at the end.
 */
static bool fpb_walk_hold(struct fpb_pass *pass, struct zone *zone, unsigned int order,
			  unsigned int type, struct fpb_cursor *cursor, unsigned long *allowance)
{
	struct free_area *area = &zone->free_area[order];
	struct list_head *head = &area->free_list[type], *entry;
	struct fpb_info *info = pass->info;
	unsigned long max = min(*allowance, fpb_hold_entries(pass));
	unsigned int visited = 0;
	unsigned long flags;
	u64 began;

	spin_lock_irqsave(&info->offline_lock, flags);
	spin_lock(&zone->lock);
	began = ktime_get_ns();
	entry = head->next;
	if (cursor->page) {
		if (fpb_cursor_valid(info, zone, order, cursor) ||
		    fpb_misbehaves(info, FPB_TRUST_CURSOR))
			entry = cursor->page->fpb_buddy_link.next;
		else
			info->counters.restarts++;
	}
	cursor->page = NULL;
	cursor->offline_count = info->offline_count;
	for (; !fpb_is_head(area, entry) && visited < max; entry = entry->next) {
		cursor->page = list_entry(entry, struct page, fpb_buddy_link);
		cursor->pfn = page_to_pfn(cursor->page);
		fpb_mark(pass, cursor->pfn, order);
		fpb_test_block(pass, cursor->pfn, order);
		visited++;
	}
	/* Strayed to the end of another list: this one starts over. */
	if (fpb_is_head(area, entry) && entry != head) {
		cursor->page = NULL;
		info->counters.restarts++;
	}
	fpb_account_hold(info, began, visited);
	spin_unlock(&zone->lock);
	spin_unlock_irqrestore(&info->offline_lock, flags);

	pass->entries += visited;
	info->free_blocks[order] += visited;
	*allowance -= visited;
	return entry == head;
}

/*
 * A list that changes faster than we read it could keep us for ever: it gets
 * twice the entries that its area had to begin with, and what is not seen by
 * then is left out.
 */
static void fpb_walk_list(struct fpb_pass *pass, struct zone *zone, unsigned int order,
			  unsigned int type)
{
	struct free_area *area = &zone->free_area[order];
	unsigned long allowance = 2 * READ_ONCE(area->nr_free) + 1;
	struct fpb_info *info = pass->info;
	struct fpb_cursor cursor = {};

	/* Without the lock: who is missed here is merely left out. */
	if (list_empty(&area->free_list[type]))
		return;
	while (!fpb_walk_hold(pass, zone, order, type, &cursor, &allowance)) {
		if (fpb_superseded(info, pass->generation))
			return;
		if (!allowance) {
			info->counters.lists_abandoned++;
			pass->partial = true;
			return;
		}
		fpb_test_stand_midway(pass);
		cond_resched();
	}
}

static void fpb_walk_zone(struct fpb_pass *pass, struct zone *zone)
{
	int order;
	unsigned int type;

	/* Large blocks first: if the walk is cut short, most is in the answer. */
	for (order = FPB_NR_ORDERS - 1; order >= 0; order--) {
		for (type = 0; type < MIGRATE_TYPES; type++) {
			/* About to leave the guest; not worth a request's time. */
			if (is_migrate_isolate(type) &&
			    !fpb_misbehaves(pass->info, FPB_REPORT_ISOLATED))
				continue;
			if (fpb_superseded(pass->info, pass->generation))
				return;
			fpb_walk_list(pass, zone, order, type);
		}
		cond_resched();
	}
}

/* Fill the pass's chunks.  Whoever supersedes it makes it end early. */
void fpb_walk(struct fpb_pass *pass)
{
	struct zone *zone;
	unsigned int i;
	int nid;

	pass->partial = false;
	pass->entries = 0;
	for (i = 0; i < pass->nr_chunks; i++)
		if (!fpb_misbehaves(pass->info, FPB_KEEP_BITS))
			memset(pass->chunks[i]->bitmap, 0, FPB_CHUNK_BYTES);
	for_each_online_node(nid) {
		zone = NODE_DATA(nid)->node_zones;
		for (i = 0; i < MAX_NR_ZONES; i++, zone++) {
			if (!populated_zone(zone) ||
			    zone->zone_start_pfn << FPB_PAGE_ORDER >= pass->end ||
			    zone_end_pfn(zone) << FPB_PAGE_ORDER <= pass->start)
				continue;
			fpb_walk_zone(pass, zone);
		}
	}
	fpb_test_walked(pass);
}

static int fpb_memory_event(struct notifier_block *nb, unsigned long action, void *unused)
{
	struct fpb_info *info = container_of(nb, struct fpb_info, memory);
	unsigned long flags;

	if (action == MEM_GOING_OFFLINE || action == MEM_OFFLINE) {
		spin_lock_irqsave(&info->offline_lock, flags);
		info->offline_count++;
		spin_unlock_irqrestore(&info->offline_lock, flags);
	}
	if (action == MEM_GOING_OFFLINE)
		fpb_test_stand_offline(info);
	return NOTIFY_OK;
}

int fpb_walk_init(struct fpb_info *info)
{
	spin_lock_init(&info->offline_lock);
	info->memory.notifier_call = fpb_memory_event;
	return register_memory_notifier(&info->memory);
}

void fpb_walk_exit(struct fpb_info *info)
{
	unregister_memory_notifier(&info->memory);
}
