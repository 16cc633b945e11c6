// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"
#include "words.h"
#include "work.h"

#define WATCH_SAMPLES	16384U

struct watch_sample {
	uint64_t us, work, mem_free;
};

static struct {
	int timer;
	uint64_t taken;
	struct watch_sample ring[WATCH_SAMPLES];	/* touched only where it is used */
} watch = { .timer = -1 };

int watch_timer(void)
{
	return watch.timer;
}

static uint64_t watch_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void watch_take(void)
{
	struct watch_sample *s = &watch.ring[watch.taken++ % WATCH_SAMPLES];
	struct sysinfo info;
	uint64_t expired;

	if (read(watch.timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		return;
	s->us = watch_clock();
	s->work = work_so_far();
	s->mem_free = sysinfo(&info) ? 0 : (uint64_t)info.freeram * info.mem_unit;
}

/* Returns 0, or an error number. */
static int watch_begin(uint64_t ms)
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
static void watch_window(struct json *j, uint64_t from, uint64_t to)
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
	json_object(j, NULL);
	json_number(j, "samples", samples);
	json_number(j, "us", first ? last->us - first->us : 0);
	json_number(j, "work", first ? last->work - first->work : 0);
	json_number(j, "mem_free_lowest", first ? lowest : 0);
	json_number(j, "gap_us", gap);
	json_end(j);
}

/* "Node 0, zone   Normal  1  2  3 ...": the numbers after the zone's name, summed up. */
static void watch_orders(struct json *j)
{
	FILE *file = fopen("/proc/buddyinfo", "re");
	uint64_t blocks[32] = { 0 };
	unsigned int orders = 0, i;
	char line[512];

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
	json_object(j, NULL);
	json_list(j, "blocks");
	for (i = 0; i < orders; i++)
		json_number(j, NULL, blocks[i]);
	json_end(j);
	json_end(j);
}

static void tell_clock(struct json *j)
{
	json_object(j, NULL);
	json_number(j, "us", watch_clock());
	json_end(j);
}

int watch_do(int argc, char **argv, struct json *j)
{
	uint64_t from = 0, to = 0;

	if (!strcmp(argv[0], "orders") && argc == 1) {
		watch_orders(j);
	} else if (!strcmp(argv[0], "window") && argc == 3 && !parse_u64(argv[1], &from) &&
		   !parse_u64(argv[2], &to)) {
		watch_window(j, from, to);
	} else if (!strcmp(argv[0], "watch") && argc == 2 && !parse_u64(argv[1], &from) && from) {
		int error = watch_begin(from);

		if (error)
			json_fail(j, "cannot watch: %s", strerror(error));
		tell_clock(j);
	} else if (!strcmp(argv[0], "clock") && argc == 1) {
		tell_clock(j);
	} else {
		return -1;
	}
	return 0;
}
