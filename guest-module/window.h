/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a block of frames to bits of chunks.  Apart from the rest so that a unit
 * test can compile it, with types of its own, outside of any kernel.
 */
#ifndef FREEPAGE_WINDOW_H
#define FREEPAGE_WINDOW_H

/* Set the bits of a chunk that [from, to) names. */
static inline void fpb_set_bits(__le64 *bitmap, unsigned int from, unsigned int to)
{
	while (from < to) {
		unsigned int bit = from % 64, nr = min(64 - bit, to - from);

		bitmap[from / 64] |= cpu_to_le64((~0ULL >> (64 - nr)) << bit);
		from += nr;
	}
}

/* And clear them. */
static inline void fpb_clear_bits(__le64 *bitmap, unsigned int from, unsigned int to)
{
	while (from < to) {
		unsigned int bit = from % 64, nr = min(64 - bit, to - from);

		bitmap[from / 64] &= ~cpu_to_le64((~0ULL >> (64 - nr)) << bit);
		from += nr;
	}
}

static inline bool fpb_all_set(const __le64 *bitmap, unsigned int from, unsigned int to)
{
	while (from < to) {
		unsigned int bit = from % 64, nr = min(64 - bit, to - from);

		if (~bitmap[from / 64] & cpu_to_le64((~0ULL >> (64 - nr)) << bit))
			return false;
		from += nr;
	}
	return true;
}

/* Note 1 << order frames, or what of them is inside of the pass. */
static inline void fpb_mark_frames(struct fpb_pass *pass, unsigned long frame,
				   unsigned int order)
{
	unsigned long from = max(frame, pass->start);
	unsigned long to = min(frame + (1UL << order), pass->end);

	while (from < to) {
		unsigned long i = (from - pass->base) / pass->chunk_bits;
		unsigned long first = pass->base + i * pass->chunk_bits;
		unsigned long end = min(to, first + pass->chunk_bits);

		fpb_set_bits(pass->chunks[i]->bitmap, from - first, end - first);
		from = end;
	}
}

/* Note a free block of pages: every frame of it. */
static inline void fpb_mark(struct fpb_pass *pass, unsigned long pfn, unsigned int order)
{
	fpb_mark_frames(pass, pfn << FPB_PAGE_ORDER, order + FPB_PAGE_ORDER);
}

#endif /* FREEPAGE_WINDOW_H */
