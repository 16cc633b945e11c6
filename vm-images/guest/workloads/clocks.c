// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Clocks that are read, and timers that must fire, for a guest that is about to be
 * migrated.
 *
 *   load clocks SEED BYTES [every_ms=MS] [keep=BYTES]
 *
 * Every MS milliseconds a timer fires, and each clock is read several times in a row:
 *
 *   monotonic, boottime, realtime   the kernel's, made of its clocksource
 *   tsc                             the processor's counter, in its own ticks
 *   hpet                            the board's counter, by /dev/hpet; in nanoseconds
 *
 * A clock that shows less than before went back; the largest step of that kind is kept.
 * How late each timer fired is measured by the monotonic clock.  `report` tells what
 * the clocks show now, and the real-time clock (/dev/rtc0), which counts in seconds.
 * What a kernel does not have is left out.
 */
#define _GNU_SOURCE
#include <linux/rtc.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>

#include "serve.h"
#include "work.h"
#include "workload.h"

#define IN_A_ROW	4
#define LATEST		2000000000ULL	/* a timer that is later than so many ns is lost */
#define MOST_TRIES	10000000	/* if the clock stands as well */
#define HPET_BYTES	1024
#define HPET_PERIOD	4	/* in femtoseconds */
#define HPET_LOW	0xf0
#define HPET_HIGH	0xf4

static uint64_t read_kernel(int which)
{
	struct timespec t;

	clock_gettime(which, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t read_monotonic(void)
{
	return read_kernel(CLOCK_MONOTONIC);
}

static uint64_t read_boottime(void)
{
	return read_kernel(CLOCK_BOOTTIME);
}

static uint64_t read_realtime(void)
{
	return read_kernel(CLOCK_REALTIME);
}

#ifdef __x86_64__
static uint64_t read_tsc(void)
{
	return __builtin_ia32_rdtsc();
}
#endif

/* Volatile: it is a device. */
static const volatile uint8_t *hpet;

static uint32_t hpet_word(unsigned int at)
{
	return *(const volatile uint32_t *)(hpet + at);
}

static uint64_t read_hpet(void)
{
	uint32_t high = hpet_word(HPET_HIGH), low = hpet_word(HPET_LOW), again = hpet_word(HPET_HIGH);

	/* It went round in between. */
	if (again != high)
		low = hpet_word(HPET_LOW);
	return (((uint64_t)again << 32) | low) * (hpet_word(HPET_PERIOD) / 1000) / 1000;
}

static struct clock {
	const char *name;
	uint64_t (*read)(void);
	uint64_t last, back;
} clocks[] = {
	{ .name = "monotonic", .read = read_monotonic },
	{ .name = "boottime", .read = read_boottime },
	{ .name = "realtime", .read = read_realtime },
#ifdef __x86_64__
	{ .name = "tsc", .read = read_tsc },
#endif
	{ .name = "hpet", .read = read_hpet },	/* the last: it may be left out */
};

static struct {
	unsigned int count;
	uint64_t every_ms, due, late, fired, samples;
	int timer, rtc, running;
	uint64_t keep;
	char source[64];
	struct region kept;
} watched = { .every_ms = 5, .running = 1, .keep = 8 * MIB };

static void stop(void);
static struct tally verify(void);
static int report(const char *line);
static struct server server = { .stop = stop, .verify = verify, .other = report };

static void read_clocks(void)
{
	unsigned int i, k;

	for (k = 0; k < IN_A_ROW; k++)
		for (i = 0; i < watched.count; i++) {
			struct clock *c = &clocks[i];
			uint64_t t = c->read();

			if (t < c->last && c->last - t > c->back)
				c->back = c->last - t;
			c->last = t;
		}
	watched.samples += IN_A_ROW;
}

/* One after the other, and not periodic: each has to be programmed anew. */
static void set_timer(void)
{
	struct itimerspec at;

	watched.due = read_monotonic() + watched.every_ms * 1000000;
	at = (struct itimerspec){
		.it_value = { watched.due / 1000000000, watched.due % 1000000000 },
	};
	if (timerfd_settime(watched.timer, TFD_TIMER_ABSTIME, &at, NULL))
		die("timerfd_settime: %s", strerror(errno));
}

static void fired(void)
{
	uint64_t t = read_monotonic(), expired;

	if (read(watched.timer, &expired, sizeof(expired)) < 0)
		return;
	if (t > watched.due && t - watched.due > watched.late)
		watched.late = t - watched.due;
	watched.fired++;
	server.steps++;
	work_done(1);
	read_clocks();
	if (watched.running)
		set_timer();
}

/*
 * One timer more: it was set before, so it shows whether the interrupts still come.
 * Not asleep, as a sleeper is woken by what may be lost.
 */
static void stop(void)
{
	struct pollfd timer = { watched.timer, POLLIN, 0 };
	unsigned int tries = 0;
	uint64_t t;

	if (!watched.running)
		return;
	watched.running = 0;
	while (!poll(&timer, 1, 0) && read_monotonic() < watched.due + LATEST && tries++ < MOST_TRIES)
		;
	t = read_monotonic();
	if (timer.revents)
		fired();
	else if (t > watched.due && t - watched.due > watched.late)
		watched.late = t - watched.due;
}

static struct tally verify(void)
{
	return check_all(&watched.kept);
}

/* In seconds since 1970; 0: there is none. */
static uint64_t read_rtc(void)
{
	struct rtc_time shown = { 0 };
	struct tm t;

	if (watched.rtc < 0 || ioctl(watched.rtc, RTC_RD_TIME, &shown))
		return 0;
	t = (struct tm){ .tm_sec = shown.tm_sec, .tm_min = shown.tm_min, .tm_hour = shown.tm_hour,
			 .tm_mday = shown.tm_mday, .tm_mon = shown.tm_mon, .tm_year = shown.tm_year };
	return timegm(&t);
}

static int report(const char *line)
{
	uint64_t rtc = read_rtc();
	char names[128] = "";
	struct json *j;
	unsigned int i;

	if (strcmp(line, "report"))
		return 0;
	read_clocks();
	j = answer_begin();
	json_string(j, "clocksource", watched.source);
	for (i = 0; i < watched.count; i++) {
		strcat(names, i ? " " : "");
		strcat(names, clocks[i].name);
	}
	json_string(j, "clocks", names);
	json_list(j, "shown");
	for (i = 0; i < watched.count; i++)
		json_number(j, NULL, clocks[i].last);
	json_end(j);
	json_list(j, "back");
	for (i = 0; i < watched.count; i++)
		json_number(j, NULL, clocks[i].back);
	json_end(j);
	json_number(j, "rtc_s", rtc);
	json_number(j, "fired", watched.fired);
	json_number(j, "late_ns", watched.late);
	json_number(j, "samples", watched.samples);
	answer_end(j);
	return 1;
}

static void find_clocks(void)
{
	int fd;

	read_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", watched.source,
		  sizeof(watched.source));
	watched.rtc = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
	watched.count = sizeof(clocks) / sizeof(*clocks);
	fd = open("/dev/hpet", O_RDONLY | O_CLOEXEC);
	hpet = fd < 0 ? MAP_FAILED : mmap(NULL, HPET_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (hpet == MAP_FAILED)
		watched.count--;
}

static uint64_t load(const struct load *load, struct tally *t)
{
	if (!watched.every_ms)
		die("that is no time");
	demand_size(watched.keep);
	region_load(&watched.kept, load->seed, watched.keep, 1, t);
	find_clocks();
	watched.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (watched.timer < 0)
		die("timerfd_create: %s", strerror(errno));
	read_clocks();
	set_timer();
	return 0;
}

static int events(struct pollfd *in, int *timeout)
{
	(void)timeout;
	in[0] = (struct pollfd){ watched.timer, POLLIN, 0 };
	return 1;
}

static void work(const struct pollfd *in, int ready)
{
	(void)ready;
	if (in[0].revents)
		fired();
}

static const struct workload_option options[] = {
	{ "every_ms", .number = &watched.every_ms }, { "keep", .number = &watched.keep }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(clocks, run);
