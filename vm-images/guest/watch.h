/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest gets done, and how much memory it has left, sampled by the agent.
 *
 * `watch MS` begins: every MS milliseconds of the guest's own time a sample of
 * MemFree and of the workload's counter is taken.  `window FROM TO` sums up those
 * between two instants of the clock that `clock` tells (microseconds).  That clock
 * stands while the guest is stopped, so a pause is no part of any window.
 *
 * The counter is a word in a page that the agent shares with its children; a
 * workload that does no work leaves it alone.
 *
 * `orders` is the kernel's own count of free blocks by order, over all zones.
 */
#ifndef FREEPAGE_WATCH_H
#define FREEPAGE_WATCH_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "meminfo.h"

/* Names the descriptor of the shared page, for the children. */
#define WORK_VARIABLE	"FREEPAGE_WORK"
#define WATCH_SAMPLES	16384U

struct watch_sample {
	uint64_t us, work, mem_free;
};

static struct {
	int timer;
	uint64_t taken;
	volatile uint64_t *work;
	struct watch_sample ring[WATCH_SAMPLES];	/* touched only where it is used */
} watch = { .timer = -1 };

/* The counter that is shared with the agent; NULL where there is none. */
static inline volatile uint64_t *work_counter(void)
{
	const char *number = getenv(WORK_VARIABLE);
	void *page;

	if (!number)
		return NULL;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(number), 0);
	return page == MAP_FAILED ? NULL : page;
}

/* In the agent, before it has children.  Without it nothing counts work. */
static inline void watch_share(void)
{
	int fd = memfd_create("work", 0);
	char number[16];

	if (fd < 0 || ftruncate(fd, 4096))
		return;
	snprintf(number, sizeof(number), "%d", fd);
	setenv(WORK_VARIABLE, number, 1);
	watch.work = work_counter();
}

static inline uint64_t watch_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline void watch_take(void)
{
	struct watch_sample *s = &watch.ring[watch.taken++ % WATCH_SAMPLES];
	struct sysinfo info;
	uint64_t expired;

	if (read(watch.timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		return;
	s->us = watch_clock();
	s->work = watch.work ? *watch.work : 0;
	s->mem_free = sysinfo(&info) ? 0 : (uint64_t)info.freeram * info.mem_unit;
}

/* Returns 0, or an error number. */
static inline int watch_begin(uint64_t ms)
{
	struct itimerspec each = {
		.it_interval = { ms / 1000, ms % 1000 * 1000000 },
		.it_value = { ms / 1000, ms % 1000 * 1000000 },
	};

	if (watch.timer < 0)
		watch.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (watch.timer < 0 || timerfd_settime(watch.timer, 0, &each, NULL))
		return errno;
	watch.taken = 0;
	watch_take();
	return 0;
}

/*
 * Work and time are between the first and the last sample inside: a sample is the
 * only instant of which both are known.
 */
static inline void watch_window(char *text, size_t size, uint64_t from, uint64_t to)
{
	uint64_t i = watch.taken > WATCH_SAMPLES ? watch.taken - WATCH_SAMPLES : 0;
	const struct watch_sample *first = NULL, *last = NULL;
	uint64_t gap = 0, lowest = UINT64_MAX, samples = 0;

	for (; i < watch.taken; i++) {
		const struct watch_sample *s = &watch.ring[i % WATCH_SAMPLES];

		if (s->us < from || s->us > to)
			continue;
		if (!first)
			first = s;
		if (last && s->us - last->us > gap)
			gap = s->us - last->us;
		if (s->mem_free < lowest)
			lowest = s->mem_free;
		last = s;
		samples++;
	}
	snprintf(text, size, "{\"samples\":%" PRIu64 ",\"us\":%" PRIu64 ",\"work\":%" PRIu64
		 ",\"mem_free_lowest\":%" PRIu64 ",\"gap_us\":%" PRIu64 "}", samples,
		 first ? last->us - first->us : 0, first ? last->work - first->work : 0,
		 first ? lowest : 0, gap);
}

/* "Node 0, zone   Normal  1  2  3 ...": the numbers after the zone's name, summed up. */
static inline const char *watch_orders(char *text, size_t size)
{
	FILE *file = fopen("/proc/buddyinfo", "re");
	uint64_t blocks[32] = { 0 };
	unsigned int orders = 0, i;
	char line[512];
	size_t used;

	while (file && fgets(line, sizeof(line), file)) {
		char *at = strstr(line, "zone"), *end;

		at = at ? at + 4 + strspn(at + 4, " ") : line + strlen(line);
		at += strcspn(at, " ");
		for (i = 0; i < 32; i++, at = end) {
			uint64_t count = strtoull(at, &end, 10);

			if (end == at)
				break;
			blocks[i] += count;
		}
		orders = i > orders ? i : orders;
	}
	if (file)
		fclose(file);
	used = snprintf(text, size, "{\"blocks\":[");
	for (i = 0; i < orders && used < size; i++)
		used += snprintf(text + used, size - used, "%s%" PRIu64, i ? "," : "", blocks[i]);
	snprintf(text + used, used < size ? size - used : 0, "]}");
	return text;
}

/* Returns 0 or 1, with the answer or the reason in text; -1: none of these verbs. */
static inline int watch_do(int argc, char **argv, char *text, size_t size)
{
	uint64_t from = 0, to = 0;

	if (!strcmp(argv[0], "orders") && argc == 1) {
		watch_orders(text, size);
	} else if (!strcmp(argv[0], "window") && argc == 3 && !parse_u64(argv[1], &from) &&
		   !parse_u64(argv[2], &to)) {
		watch_window(text, size, from, to);
	} else if (!strcmp(argv[0], "watch") && argc == 2 && !parse_u64(argv[1], &from) && from) {
		int error = watch_begin(from);

		snprintf(text, size, "{\"us\":%" PRIu64 "}", watch_clock());
		if (error)
			snprintf(text, size, "cannot watch: %s", strerror(error));
		return !!error;
	} else if (!strcmp(argv[0], "clock") && argc == 1) {
		snprintf(text, size, "{\"us\":%" PRIu64 "}", watch_clock());
	} else {
		return -1;
	}
	return 0;
}

#endif /* FREEPAGE_WATCH_H */
