// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's end of the control channel.
 *
 * Build: gcc -Os -static -Wall -Wextra -o agent agent.c          installs as /bin/agent
 *
 *   agent --tty PATH [--driver NAME] [--programs DIR]
 *
 * The host writes one line, `<n> <verb> [args]`; the answer is one line,
 * `<n> ok {json}` or `<n> error <text>`.  Lines are ASCII and at most 4096 bytes.
 * What comes unasked starts with `! `, but for the first line, `ready {json}`.
 *
 * The channel is a serial port that is migrated in the middle of a byte, so:
 *  - the numbers of one host only grow.  A number that was answered before gets
 *    the same answer again, one that is being worked on is ignored: the host may
 *    ask again whenever a line may have been lost, and nothing is done twice;
 *  - NAK (0x15) drops what was received of a line: the host sends it before it
 *    asks again on a new connection.
 *
 * Memory belongs to children (workload, exercise): the agent itself stays small,
 * answers always, and reports a child that dies.  So it waits for nothing: what may
 * take long in the kernel is done by a child as well (a job), and a child that ends
 * is waited for only when it is gone.
 *
 * What it can do is in the table of verbs, below.  A verb is a function and a
 * line of that table.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

#include "command.h"
#include "controls.h"
#include "machine.h"
#include "msrs.h"
#include "meminfo.h"
#include "observe.h"
#include "watch.h"

#define LINE_BYTES	4096
#define KEPT_ANSWERS	8
#define MOST_JOBS	4
#define MOST_WORDS	40	/* behind a verb; misbehave takes 33 */
#define WRONG		"unknown verb or wrong arguments"
#define NAK		0x15
#define STATUS_POWEROFF	42	/* to init: switch the machine off */

/* A line of the host's; argv[0] is the verb. */
struct call {
	uint64_t n;
	int argc;
	char **argv;
};

struct answer {
	uint64_t n;
	char text[LINE_BYTES];
};

struct worker {
	const char *name;
	pid_t pid;		/* 0: there is none */
	int fd;			/* -1: it says nothing any more */
	uint64_t n;		/* the call that waits for its answer, or 0 */
	int once;		/* it answers one call and ends */
	int loaded, held, killed;
	char line[LINE_BYTES];
	size_t used;
	uint64_t then;		/* the call that waits for its end, or 0 */
	char **next;		/* what is started then; NULL: nothing */
};

static struct {
	int tty;
	const char *driver, *programs;
	char in[LINE_BYTES], out[16 * LINE_BYTES];
	size_t in_used, out_used;
	int overlong, poweroff;
	int restart;		/* for reboot(2), instead of switching off */
	struct answer kept[KEPT_ANSWERS];
	unsigned int next_kept;
	struct worker load, exercise, pages, jobs[MOST_JOBS];
	int children;		/* a signalfd: one of them has ended */
	struct standing held;
} agent = {
	.driver = "none", .programs = "/bin", .held = { .fd = -1 },
	.load = { .name = "workload", .fd = -1 },
	.exercise = { .name = "exercise", .fd = -1, .once = 1 },
	.pages = { .name = "pages", .fd = -1 },
	.jobs = { [0 ... MOST_JOBS - 1] = { .name = "job", .fd = -1, .once = 1 } },
};

static struct worker *const workers[] = {
	&agent.load, &agent.exercise, &agent.pages,
	&agent.jobs[0], &agent.jobs[1], &agent.jobs[2], &agent.jobs[3],
};

#define NR_WORKERS	(sizeof(workers) / sizeof(*workers))

static void flush(void)
{
	ssize_t n = write(agent.tty, agent.out, agent.out_used);

	if (n > 0) {
		agent.out_used -= n;
		memmove(agent.out, agent.out + n, agent.out_used);
	}
}

/*
 * Queue a line.  When nobody reads the channel, whole lines are dropped rather
 * than the agent blocked: the host asks again.
 */
static void send_line(const char *text)
{
	size_t length = strnlen(text, LINE_BYTES - 1);

	if (agent.out_used + length + 1 > sizeof(agent.out))
		return;
	memcpy(agent.out + agent.out_used, text, length);
	agent.out_used += length;
	agent.out[agent.out_used++] = '\n';
	flush();
}

static void __attribute__((format(printf, 2, 3))) reply(uint64_t n, const char *format, ...)
{
	struct answer *a = &agent.kept[agent.next_kept++ % KEPT_ANSWERS];
	int used = snprintf(a->text, sizeof(a->text), "%" PRIu64 " ", n);
	va_list args;

	a->n = n;
	va_start(args, format);
	used += vsnprintf(a->text + used, sizeof(a->text) - used, format, args);
	va_end(args);
	if (used >= LINE_BYTES)
		snprintf(a->text, sizeof(a->text),
			 "%" PRIu64 " error the answer is longer than a line", n);
	send_line(a->text);
}

static void worker_silent(struct worker *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	w->used = 0;
	w->loaded = 0;
}

/* It ends soon; worker_ended() is called when it has. */
static void worker_kill(struct worker *w)
{
	if (!w->pid)
		return;
	kill(w->pid, SIGKILL);
	w->killed = 1;
	worker_silent(w);
}

/* A child of the agent's, in the child: 0; in the agent: its number, or -1. */
static pid_t worker_fork(struct worker *w, uint64_t n)
{
	sigset_t none;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -1;
	w->pid = fork();
	if (!w->pid) {
		dup2(pair[1], STDIN_FILENO);
		dup2(pair[1], STDOUT_FILENO);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		return 0;
	}
	close(pair[1]);
	if (w->pid < 0) {
		close(pair[0]);
		w->pid = 0;
		return -1;
	}
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	w->fd = pair[0];
	w->n = n;
	w->held = 0;
	w->killed = 0;
	return w->pid;
}

static char **copy_words(char *const *argv)
{
	char **copy;
	size_t i, nr = 0;

	while (argv[nr])
		nr++;
	copy = calloc(nr + 1, sizeof(*copy));
	for (i = 0; copy && i < nr; i++)
		copy[i] = strdup(argv[i]);
	return copy;
}

static void free_words(char **words)
{
	size_t i;

	for (i = 0; words && words[i]; i++)
		free(words[i]);
	free(words);
}

/* Have a call wait for the end of what runs, and start something after it, or nothing. */
static void worker_after(struct worker *w, uint64_t n, char *const *argv)
{
	if (w->then)
		reply(w->then, "error call %" PRIu64 " came instead", n);
	free_words(w->next);
	w->then = n;
	w->next = argv ? copy_words(argv) : NULL;
	worker_kill(w);
}

static void worker_start(struct worker *w, uint64_t n, char *const *argv)
{
	char path[256];
	pid_t pid;

	if (w->pid) {
		worker_after(w, n, argv);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", agent.programs, w->name);
	if (access(path, X_OK)) {
		reply(n, "error cannot start %s: %s", path, strerror(errno));
		return;
	}
	pid = worker_fork(w, n);
	if (!pid) {
		execv(path, argv);
		_exit(127);
	}
	if (pid < 0)
		reply(n, "error cannot fork: %s", strerror(errno));
}

static void worker_stop(struct worker *w, uint64_t n)
{
	if (w->pid)
		worker_after(w, n, NULL);
	else
		reply(n, "ok {}");
}

/* It is gone, and its memory free. */
static void worker_ended(struct worker *w, int status)
{
	uint64_t n = w->n, then = w->then;
	char **next = w->next;
	char how[64];

	snprintf(how, sizeof(how), "%s %d", WIFSIGNALED(status) ? "by signal" : "with status",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	worker_silent(w);
	w->pid = 0;
	w->n = 0;
	w->then = 0;
	w->next = NULL;
	if (n && w->held && !w->killed) {
		reply(n, "%s%s", w->line[0] == '{' ? "ok " : "", w->line);
	} else if (n) {
		reply(n, "error the %s ended %s", w->name, how);
	} else if (!w->killed && (WIFSIGNALED(status) || status)) {
		char line[128];

		snprintf(line, sizeof(line), "! the %s ended %s", w->name, how);
		send_line(line);
	}
	if (then && next)
		worker_start(w, then, next);
	else if (then)
		reply(then, "ok {}");
	free_words(next);
}

/*
 * A line of a worker is the answer to the call that waits for one.  Where the
 * worker ends with it, the answer is held until it is gone and its memory free:
 * whoever reads the answer may count on that.
 */
static void worker_read(struct worker *w)
{
	char *newline, drop[64];
	ssize_t got;

	if (w->held)
		got = read(w->fd, drop, sizeof(drop));
	else
		got = read(w->fd, w->line + w->used, sizeof(w->line) - 1 - w->used);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
		worker_silent(w);
	if (got <= 0 || w->held)
		return;
	w->used += got;
	w->line[w->used] = '\0';
	newline = strchr(w->line, '\n');
	if (!newline) {
		if (w->used == sizeof(w->line) - 1)
			worker_kill(w);
		return;
	}
	*newline = '\0';
	w->used = 0;
	w->held = w->once || (!w->loaded && w->line[0] != '{');
	w->loaded = 1;
	if (w->n && !w->held) {
		uint64_t n = w->n;

		w->n = 0;
		reply(n, "%s%s", w->line[0] == '{' ? "ok " : "", w->line);
	}
}

/* Who has ended?  What it said last is read first. */
static void children_ended(void)
{
	struct signalfd_siginfo drop[8];
	unsigned int i;
	int status;

	if (read(agent.children, drop, sizeof(drop)) < 0)
		return;
	for (i = 0; i < NR_WORKERS; i++) {
		struct worker *w = workers[i];

		if (!w->pid || waitpid(w->pid, &status, WNOHANG) != w->pid)
			continue;
		if (w->fd >= 0)
			worker_read(w);
		worker_ended(w, status);
	}
}

/*
 * Do what may take long in a child, which writes the answer: an object, or "error"
 * and why.
 */
static void job(const struct call *c, void (*run)(const struct call *c, char *text, size_t size))
{
	char text[LINE_BYTES - 64] = "";
	struct worker *w = agent.jobs;
	pid_t pid;

	while (w < agent.jobs + MOST_JOBS && w->pid)
		w++;
	if (w == agent.jobs + MOST_JOBS) {
		reply(c->n, "error too much is under way");
		return;
	}
	pid = worker_fork(w, c->n);
	if (pid < 0)
		reply(c->n, "error cannot fork: %s", strerror(errno));
	if (pid)
		return;
	close(agent.tty);
	run(c, text, sizeof(text) - 1);
	strcat(text, "\n");
	_exit(write(STDOUT_FILENO, text, strlen(text)) < 0);
}

/*
 * device NAME ACTION [WORD..]: a program that uses a device, and says whether it answers
 * (device.c).  Each call has one of its own: one that hangs on a device keeps no other.
 */
static void device(const struct call *c)
{
	struct worker *w = agent.jobs;
	char path[256];
	pid_t pid;

	while (w < agent.jobs + MOST_JOBS && w->pid)
		w++;
	snprintf(path, sizeof(path), "%s/device", agent.programs);
	if (w == agent.jobs + MOST_JOBS) {
		reply(c->n, "error too much is under way");
		return;
	}
	if (access(path, X_OK)) {
		reply(c->n, "error cannot start %s: %s", path, strerror(errno));
		return;
	}
	pid = worker_fork(w, c->n);
	if (pid < 0)
		reply(c->n, "error cannot fork: %s", strerror(errno));
	if (pid)
		return;
	execv(path, c->argv);
	_exit(127);
}

static void ask(struct worker *w, uint64_t n, const char *verb, const char *argument)
{
	char line[512];
	int length = snprintf(line, sizeof(line), "%s%s%s\n", verb, argument ? " " : "",
			      argument ? argument : "");

	if (w->fd < 0 || w->then) {
		reply(n, "error nothing is loaded");
	} else if (w->n) {
		reply(n, "error the %s is busy with call %" PRIu64, w->name, w->n);
	} else if (length >= (int)sizeof(line) || write(w->fd, line, length) != length) {
		reply(n, "error the %s does not listen", w->name);
	} else {
		w->n = n;
	}
}

/* verify, stop, report, frames PATH: a worker that was loaded answers. */
static void of_workload(const struct call *c)
{
	ask(&agent.load, c->n, c->argv[0], c->argc > 1 ? c->argv[1] : NULL);
}

/* pages-VERB [COUNT]: the script's own pages. */
static void of_pages(const struct call *c)
{
	ask(&agent.pages, c->n, c->argv[0] + strlen("pages-"), c->argc > 1 ? c->argv[1] : NULL);
}

/* pages-alloc SEED COUNT: in a process that the first call starts. */
static void pages_alloc(const struct call *c)
{
	char *words[] = { "pages", c->argv[1], c->argv[2], NULL };

	if (agent.pages.fd < 0)
		worker_start(&agent.pages, c->n, words);
	else
		ask(&agent.pages, c->n, "alloc", c->argv[2]);
}

static const char *driver_name(void)
{
	return !strcmp(agent.driver, "info") ? "freepage_balloon" : "virtio_balloon";
}

static void driver_job(const struct call *c, char *text, size_t size)
{
	const char *name = driver_name();

	if (machine_driver(name, c->argv[0] + strlen("driver-")))
		snprintf(text, size, "error %s: %s", name, strerror(errno));
	else
		snprintf(text, size, "{}");
}

/* driver-unbind, driver-bind */
static void driver(const struct call *c)
{
	if (!strcmp(c->argv[0], "driver-unbind"))
		machine_note_device(driver_name());
	job(c, driver_job);
}

static void memory_job(const struct call *c, char *text, size_t size)
{
	const char *state = c->argv[0] + strlen("memory-");
	int changed[1024], count, i, most = c->argc > 1 ? atoi(c->argv[1]) : 1024;

	count = machine_memory(state, most < 1024 ? most : 1024, changed);
	if (!count) {
		snprintf(text, size, "error no memory block could be taken %s: %s", state,
			 strerror(errno));
		return;
	}
	append(text, size, "{\"blocks\":[");
	for (i = 0; i < count; i++)
		append(text, size - 3, "%s%d", i ? "," : "", changed[i]);
	append(text, size, "]}");
}

/* memory-offline COUNT, memory-online */
static void memory(const struct call *c)
{
	job(c, memory_job);
}

static void cpus_job(const struct call *c, char *text, size_t size)
{
	int online = !strcmp(c->argv[0], "cpus-online"), most = c->argc > 1 ? atoi(c->argv[1]) : 0;
	int changed, count;

	changed = machine_cpus(online, most, &count);
	snprintf(text, size, "{\"changed\":%d,\"online\":%d}", changed, count);
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
	agent.restart = how;
	agent.poweroff = 1;
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

static void describe(char *text, size_t size)
{
	struct utsname name;
	struct timespec up;

	uname(&name);
	clock_gettime(CLOCK_BOOTTIME, &up);
	snprintf(text, size, "{\"protocol\":1,\"driver\":\"%s\",\"release\":\"%s\","
		 "\"uptime_ms\":%" PRIu64 ",\"mem_total\":%" PRIu64 ",\"mem_free\":%" PRIu64
		 ",\"loaded\":%s}", agent.driver, name.release,
		 (uint64_t)up.tv_sec * 1000 + up.tv_nsec / 1000000, meminfo("MemTotal"),
		 meminfo("MemFree"), agent.load.fd < 0 ? "false" : "true");
}

static void ping(const struct call *c)
{
	char text[LINE_BYTES - 64];

	describe(text, sizeof(text));
	reply(c->n, "ok %s", text);
}

static void stats(const struct call *c)
{
	char text[LINE_BYTES - 64];

	reply(c->n, "ok %s", observe_stats(text, sizeof(text)));
}

static void kmsg_job(const struct call *c, char *text, size_t size)
{
	observe_kmsg(text, size, c->argc > 1 ? atoll(c->argv[1]) : -1);
}

/* Where the kernel looks for leaks, it takes seconds. */
static void kmsg(const struct call *c)
{
	job(c, kmsg_job);
}

static void msrs(const struct call *c)
{
	char text[LINE_BYTES - 64];
	int failed = msrs_read(atoi(c->argv[1]), text, sizeof(text));

	reply(c->n, "%s %s", failed ? "error" : "ok", text);
}

static void load(const struct call *c)
{
	char *with_name[MOST_WORDS + 2] = { "workload" };

	memcpy(with_name + 1, c->argv, c->argc * sizeof(*c->argv));
	worker_start(&agent.load, c->n, with_name);
}

static void unload(const struct call *c)
{
	worker_stop(&agent.load, c->n);
}

static void exercise(const struct call *c)
{
	if (agent.exercise.pid)
		reply(c->n, "error an exercise is running");
	else
		worker_start(&agent.exercise, c->n, c->argv);
}

/* Wait until the module stands at a point.  Who waited before gives way. */
static void held(const struct call *c)
{
	char text[256];

	if (agent.held.n)
		reply(agent.held.n, "error call %" PRIu64 " waits instead", c->n);
	standing_end(&agent.held);
	if (standing_begin(&agent.held, c->n, c->argv[1], text, sizeof(text)))
		reply(c->n, "error %s", text);
}

static void standing_changed(void)
{
	uint64_t n = agent.held.n;
	char text[256];
	int found = standing_read(&agent.held, text, sizeof(text));

	if (!found)
		return;
	standing_end(&agent.held);
	reply(n, "%s %s", found > 0 ? "ok" : "error", text);
}

static void answer_at_once(const struct call *c, int failed, const char *text)
{
	if (failed < 0)
		reply(c->n, "error " WRONG);
	else
		reply(c->n, "%s %s", failed ? "error" : "ok", text);
}

/* A write to a file of the module's. */
static void controls(const struct call *c)
{
	char text[LINE_BYTES - 64];

	answer_at_once(c, controls_do(c->argc, c->argv, text, sizeof(text)), text);
}

static void controls_job(const struct call *c, char *text, size_t size)
{
	size_t word = strlen("error ");

	if (controls_do(c->argc, c->argv, text + word, size - word)) {
		memcpy(text, "error ", word);
		return;
	}
	memmove(text, text + word, strlen(text + word) + 1);
}

/* As well, but the module may walk, or allocate, before it returns. */
static void slow_controls(const struct call *c)
{
	job(c, controls_job);
}

/* A sample, or what was sampled. */
static void watching(const struct call *c)
{
	char text[LINE_BYTES - 64];

	answer_at_once(c, watch_do(c->argc, c->argv, text, sizeof(text)), text);
}

static void run_job(const struct call *c, char *text, size_t size)
{
	command_run(c->n, atoi(c->argv[1]), c->argc - 2, c->argv + 2, text, size);
}

/* A command of the host's. */
static void run(const struct call *c)
{
	command_next(c->n);
	job(c, run_job);
}

static void output(const struct call *c)
{
	char text[LINE_BYTES - 64];
	int failed = command_output(strtoull(c->argv[1], NULL, 10), strtoull(c->argv[2], NULL, 10),
				    text, sizeof(text));

	reply(c->n, "%s %s", failed ? "error" : "ok", text);
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

static void line_received(char *line)
{
	char *argv[MOST_WORDS + 2], *rest = NULL, *end;
	unsigned int i;
	int argc = 0;
	uint64_t n;

	if (!*line)
		return;
	n = strtoull(line, &end, 10);
	if (*line < '0' || *line > '9' || !n || *end != ' ') {
		send_line("! a line without a number and a verb");
		return;
	}
	if (n == agent.held.n)
		return;
	for (i = 0; i < NR_WORKERS; i++)
		if (n == workers[i]->n || n == workers[i]->then)
			return;
	for (i = 0; i < KEPT_ANSWERS; i++)
		if (agent.kept[i].n == n) {
			send_line(agent.kept[i].text);
			return;
		}
	for (line = strtok_r(end, " ", &rest); line && argc <= MOST_WORDS;
	     line = strtok_r(NULL, " ", &rest))
		argv[argc++] = line;
	argv[argc] = NULL;
	if (line || !argc)
		reply(n, "error no verb, or too many arguments");
	else
		dispatch(&(struct call){ n, argc, argv });
}

static void tty_read(void)
{
	unsigned char bytes[512];
	ssize_t got = read(agent.tty, bytes, sizeof(bytes)), i;

	for (i = 0; i < got; i++) {
		if (bytes[i] == NAK) {
			agent.in_used = agent.overlong = 0;
		} else if (bytes[i] == '\n' || bytes[i] == '\r') {
			agent.in[agent.in_used] = '\0';
			if (agent.overlong)
				send_line("! a line that is too long");
			else
				line_received(agent.in);
			agent.in_used = agent.overlong = 0;
		} else if (agent.in_used == sizeof(agent.in) - 1 || bytes[i] < ' ' ||
			   bytes[i] > '~') {
			agent.overlong = 1;
		} else {
			agent.in[agent.in_used++] = bytes[i];
		}
	}
}

static void open_tty(const char *path)
{
	struct termios raw;

	agent.tty = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (agent.tty < 0 || tcgetattr(agent.tty, &raw)) {
		fprintf(stderr, "agent: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&raw, B115200);
	tcsetattr(agent.tty, TCSANOW, &raw);
}

int main(int argc, char **argv)
{
	const char *tty = NULL;
	char text[LINE_BYTES - 64], ready[LINE_BYTES];
	sigset_t ended;
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--tty"))
			tty = argv[i + 1];
		else if (!strcmp(argv[i], "--driver"))
			agent.driver = argv[i + 1];
		else if (!strcmp(argv[i], "--programs"))
			agent.programs = argv[i + 1];
	}
	if (!tty) {
		fprintf(stderr, "usage: agent --tty PATH [--driver NAME] [--programs DIR]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ended, NULL);
	agent.children = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
	open_tty(tty);
	watch_share();
	describe(text, sizeof(text));
	snprintf(ready, sizeof(ready), "ready %s", text);
	send_line(ready);
	while (!agent.poweroff || agent.out_used) {
		struct pollfd wait[4 + NR_WORKERS] = {
			{ agent.tty, POLLIN | (agent.out_used ? POLLOUT : 0), 0 },
			{ agent.held.fd, POLLIN, 0 },
			{ watch.timer, POLLIN, 0 },
			{ agent.children, POLLIN, 0 },
		};
		unsigned int w;

		for (w = 0; w < NR_WORKERS; w++)
			wait[4 + w] = (struct pollfd){ workers[w]->fd, POLLIN, 0 };
		if (poll(wait, 4 + NR_WORKERS, -1) < 0)
			continue;
		if (wait[2].revents)
			watch_take();
		if (wait[0].revents & POLLOUT)
			flush();
		if (wait[0].revents & POLLIN)
			tty_read();
		else if (wait[0].revents & (POLLHUP | POLLERR))
			return 1;
		/* A read above may have ended a worker, or started another. */
		for (w = 0; w < NR_WORKERS; w++)
			if (wait[4 + w].revents && workers[w]->fd == wait[4 + w].fd)
				worker_read(workers[w]);
		if (wait[3].revents)
			children_ended();
		if (wait[1].revents && agent.held.fd == wait[1].fd)
			standing_changed();
	}
	tcdrain(agent.tty);
	if (agent.restart && reboot(agent.restart))
		return 1;
	return STATUS_POWEROFF;
}
