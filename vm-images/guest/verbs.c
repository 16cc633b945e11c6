// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "command.h"
#include "controls.h"
#include "machine.h"
#include "observe.h"
#include "verbs.h"
#include "wake.h"
#include "watch.h"
#include "words.h"
#include "worker.h"

#define WRONG		"unknown verb or wrong arguments"

static struct {
	const char *driver;
	int going_down, how;
	struct standing held;
} agent = { .driver = "none", .held = { .fd = -1 } };

/* Answer with what was written, or with the reason why there is nothing. */
static void reply_json(uint64_t n, struct json *j)
{
	const char *text = json_text(j);

	reply(n, "%s %s", j->failed ? "error" : "ok", text);
}

/* A verb that is done at once. */
static void at_once(const struct call *c, void (*run)(const struct call *c, struct json *j))
{
	char text[TEXT_BYTES];
	struct json j;

	json_begin(&j, text, sizeof(text));
	run(c, &j);
	reply_json(c->n, &j);
}

static void empty(struct json *j)
{
	json_object(j, NULL);
	json_end(j);
}

/* verify, stop, report, frames PATH: a worker that was loaded answers. */
static void of_workload(const struct call *c)
{
	worker_ask(&load_worker, c->n, c->argv[0], c->argc > 1 ? c->argv[1] : NULL);
}

/* pages-VERB [COUNT]: the script's own pages. */
static void of_pages(const struct call *c)
{
	worker_ask(&pages_worker, c->n, c->argv[0] + strlen("pages-"), c->argc > 1 ? c->argv[1] : NULL);
}

/* pages-alloc SEED COUNT: in a process that the first call starts. */
static void pages_alloc(const struct call *c)
{
	char *words[] = { "pages", c->argv[1], c->argv[2], NULL };

	if (pages_worker.fd < 0)
		worker_start(&pages_worker, c->n, words);
	else
		worker_ask(&pages_worker, c->n, "alloc", c->argv[2]);
}

/*
 * device NAME ACTION [WORD..]: a program that uses a device, and says whether it answers
 * (device.c).  Each call has one of its own: one that hangs on a device keeps no other.
 */
static void device(const struct call *c)
{
	job_program(c, "device");
}

static const char *driver_name(void)
{
	return !strcmp(agent.driver, "info") ? "freepage_balloon" : "virtio_balloon";
}

static void driver_job(const struct call *c, struct json *j)
{
	const char *name = driver_name();

	if (machine_driver(name, c->argv[0] + strlen("driver-")))
		json_fail(j, "%s: %s", name, strerror(errno));
	empty(j);
}

/* driver-unbind, driver-bind */
static void driver(const struct call *c)
{
	if (!strcmp(c->argv[0], "driver-unbind"))
		machine_note_device(driver_name());
	job(c, driver_job);
}

static void memory_job(const struct call *c, struct json *j)
{
	const char *state = c->argv[0] + strlen("memory-");
	int changed[1024], count, i, most = c->argc > 1 ? atoi(c->argv[1]) : 1024;

	count = machine_memory(state, most < 1024 ? most : 1024, changed);
	if (!count)
		json_fail(j, "no memory block could be taken %s: %s", state, strerror(errno));
	json_object(j, NULL);
	json_list(j, "blocks");
	for (i = 0; i < count; i++) {
		struct json_place before = json_here(j);

		json_number(j, NULL, changed[i]);
		json_back(j, before, 8);
	}
	json_end(j);
	json_end(j);
}

/* memory-offline COUNT, memory-online */
static void memory(const struct call *c)
{
	job(c, memory_job);
}

static void cpus_job(const struct call *c, struct json *j)
{
	int online = !strcmp(c->argv[0], "cpus-online"), most = c->argc > 1 ? atoi(c->argv[1]) : 0;
	int count, changed = machine_cpus(online, most, &count);

	json_object(j, NULL);
	json_number(j, "changed", changed);
	json_number(j, "online", count);
	json_end(j);
}

/* cpus-online [COUNT], cpus-offline [COUNT]: without a count they change nothing. */
static void cpus(const struct call *c)
{
	job(c, cpus_job);
}

static void memory_offline_begin(const struct call *c)
{
	if (machine_offline_begin())
		reply(c->n, "error cannot fork: %s", strerror(errno));
	else
		reply(c->n, "ok {}");
}

/* The answer leaves first: see the end of main(). */
static void go_down(uint64_t n, int how)
{
	agent.how = how;
	agent.going_down = 1;
	reply(n, "ok {}");
}

static void do_poweroff(const struct call *c)
{
	go_down(c->n, 0);
}

static void do_reboot(const struct call *c)
{
	go_down(c->n, LINUX_REBOOT_CMD_RESTART);
}

static void do_kexec(const struct call *c)
{
	if (machine_load_kernel())
		reply(c->n, "error the kernel cannot be loaded: %s", strerror(errno));
	else
		go_down(c->n, LINUX_REBOOT_CMD_KEXEC);
}

static void describe(const struct call *c, struct json *j)
{
	struct utsname name;
	struct timespec up;

	(void)c;
	uname(&name);
	clock_gettime(CLOCK_BOOTTIME, &up);
	json_object(j, NULL);
	json_number(j, "protocol", 1);
	json_string(j, "driver", agent.driver);
	json_string(j, "release", name.release);
	json_number(j, "uptime_ms", (uint64_t)up.tv_sec * 1000 + up.tv_nsec / 1000000);
	json_number(j, "mem_total", meminfo("MemTotal"));
	json_number(j, "mem_free", meminfo("MemFree"));
	json_bool(j, "loaded", load_worker.fd >= 0);
	json_end(j);
}

static void ping(const struct call *c)
{
	at_once(c, describe);
}

static void stats_now(const struct call *c, struct json *j)
{
	(void)c;
	observe_stats(j);
}

static void stats(const struct call *c)
{
	at_once(c, stats_now);
}

static void kmsg_job(const struct call *c, struct json *j)
{
	observe_kmsg(j, c->argc > 1 ? atoll(c->argv[1]) : -1);
}

/* Where the kernel looks for leaks, it takes seconds. */
static void kmsg(const struct call *c)
{
	job(c, kmsg_job);
}

static void msrs_now(const struct call *c, struct json *j)
{
	msrs_read(atoi(c->argv[1]), j);
}

static void msrs(const struct call *c)
{
	at_once(c, msrs_now);
}

static void msr_values_now(const struct call *c, struct json *j)
{
	msrs_read_numbers(atoi(c->argv[1]), c->argc - 2, c->argv + 2, j);
}

static void msr_values(const struct call *c)
{
	at_once(c, msr_values_now);
}

static void load(const struct call *c)
{
	char *with_name[MOST_WORDS + 2] = { "workload" };

	memcpy(with_name + 1, c->argv, c->argc * sizeof(*c->argv));
	worker_start(&load_worker, c->n, with_name);
}

static void unload(const struct call *c)
{
	worker_stop(&load_worker, c->n);
}

static void exercise(const struct call *c)
{
	if (exercise_worker.pid)
		reply(c->n, "error an exercise is running");
	else
		worker_start(&exercise_worker, c->n, c->argv);
}

/* Wait until the module stands at a point.  Who waited before gives way. */
static void held(const struct call *c)
{
	struct standing *s = &agent.held;
	char text[256];
	struct json j;

	if (s->n)
		reply(s->n, "error call %" PRIu64 " waits instead", c->n);
	standing_end(s);
	json_begin(&j, text, sizeof(text));
	standing_begin(s, c->n, c->argv[1], &j);
	if (j.failed)
		reply_json(c->n, &j);
}

int verbs_held(void)
{
	return agent.held.fd;
}

void verbs_held_changed(void)
{
	uint64_t n = agent.held.n;
	char text[256];
	struct json j;

	json_begin(&j, text, sizeof(text));
	if (!standing_read(&agent.held, &j))
		return;
	standing_end(&agent.held);
	reply_json(n, &j);
}

static void controls_now(const struct call *c, struct json *j)
{
	if (controls_do(c->argc, c->argv, j))
		json_fail(j, WRONG);
}

/* A write to a file of the module's. */
static void controls(const struct call *c)
{
	at_once(c, controls_now);
}

/* As well, but the module may walk, or allocate, before it returns. */
static void slow_controls(const struct call *c)
{
	job(c, controls_now);
}

static void watch_now(const struct call *c, struct json *j)
{
	if (watch_do(c->argc, c->argv, j))
		json_fail(j, WRONG);
}

/* A sample, or what was sampled. */
static void watching(const struct call *c)
{
	at_once(c, watch_now);
}

static void wake_now(const struct call *c, struct json *j)
{
	wake(c->argv, j);
}

/* The first call to a guest that was kept in a file. */
static void waking(const struct call *c)
{
	at_once(c, wake_now);
}

static void run_job(const struct call *c, struct json *j)
{
	command_run(c->n, atoi(c->argv[1]), c->argc - 2, c->argv + 2, j);
}

/* A command of the host's. */
static void run(const struct call *c)
{
	command_next(c->n);
	job(c, run_job);
}

static void output_now(const struct call *c, struct json *j)
{
	command_output(strtoull(c->argv[1], NULL, 10), strtoull(c->argv[2], NULL, 10), j);
}

static void output(const struct call *c)
{
	at_once(c, output_now);
}

static const struct verb {
	const char *name;
	int least, most;	/* words behind it */
	void (*run)(const struct call *c);
} verbs[] = {
	{ "ping", 0, 0, ping },
	{ "stats", 0, 0, stats },
	{ "device", 2, MOST_WORDS, device },		/* NAME ACTION [WORD..] */
	{ "kmsg", 0, 1, kmsg },				/* [AFTER] */
	{ "msrs", 1, 1, msrs },				/* CPU */
	{ "msr-values", 2, MOST_WORDS, msr_values },	/* CPU NUMBER.. */
	{ "load", 0, MOST_WORDS, load },		/* KIND SEED BYTES [key=value..] */
	{ "unload", 0, 0, unload },
	{ "verify", 0, 0, of_workload },
	{ "stop", 0, 0, of_workload },
	{ "report", 0, 0, of_workload },
	{ "frames", 1, 1, of_workload },		/* PATH */
	{ "exercise", 0, MOST_WORDS, exercise },	/* SEED [limit=BYTES] */
	{ "pages-alloc", 2, 2, pages_alloc },		/* SEED COUNT */
	{ "pages-free", 1, 1, of_pages },		/* COUNT */
	{ "pages-write", 0, 0, of_pages },
	{ "pages-read", 0, 0, of_pages },
	{ "driver-unbind", 0, 0, driver },
	{ "driver-bind", 0, 0, driver },
	{ "memory-offline", 1, 1, memory },	/* COUNT */
	{ "memory-offline-begin", 0, 0, memory_offline_begin },
	{ "memory-online", 0, 0, memory },
	{ "cpus-online", 0, 1, cpus },			/* [COUNT] */
	{ "cpus-offline", 0, 1, cpus },			/* [COUNT] */
	{ "run", 2, MOST_WORDS, run },			/* SECONDS WORD.. */
	{ "output", 2, 2, output },			/* CALL FROM */
	{ "wake", 2, 2, waking },			/* NANOSECONDS HEX */
	{ "reboot", 0, 0, do_reboot },
	{ "kexec", 0, 0, do_kexec },
	{ "poweroff", 0, 0, do_poweroff },
	/* Of a module with controls for tests (controls.h). */
	{ "held", 1, 1, held },				/* POINT */
	{ "hold", 1, 2, controls },			/* POINT [ENTRIES] */
	{ "unhold", 0, 1, controls },			/* [POINT] */
	{ "release", 0, 0, controls },
	{ "tune", 2, 2, controls },			/* NAME NUMBER */
	{ "misbehave", 1, MOST_WORDS, slow_controls },	/* NAME [NUMBER..] */
	{ "behave", 0, 0, controls },
	{ "take", 1, 1, slow_controls },			/* PAGES */
	/* For measuring (watch.h). */
	{ "watch", 1, 1, watching },			/* MS */
	{ "clock", 0, 0, watching },
	{ "window", 2, 2, watching },			/* FROM TO */
	{ "orders", 0, 0, watching },
};

static void dispatch(const struct call *c)
{
	unsigned int i;

	for (i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		const struct verb *v = &verbs[i];

		if (!strcmp(c->argv[0], v->name) && c->argc > v->least && c->argc - 1 <= v->most) {
			v->run(c);
			return;
		}
	}
	reply(c->n, "error " WRONG);
}

static int under_way(uint64_t n)
{
	return n == agent.held.n || worker_has(n);
}

const struct callee verbs_callee = { .under_way = under_way, .called = dispatch };

void verbs_begin(const char *driver_of_guest)
{
	agent.driver = driver_of_guest;
}

void verbs_greet(void)
{
	char text[TEXT_BYTES], line[LINE_BYTES];
	struct json j;

	json_begin(&j, text, sizeof(text));
	describe(NULL, &j);
	snprintf(line, sizeof(line), "ready %s", json_text(&j));
	send_line(line);
}

int verbs_going_down(int *how)
{
	*how = agent.how;
	return agent.going_down;
}
