// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

struct worker load_worker = { .name = "workload", .fd = -1 };
struct worker exercise_worker = { .name = "exercise", .fd = -1, .once = 1 };
struct worker pages_worker = { .name = "pages", .fd = -1 };

static struct {
	const char *programs;
	int children;		/* a signalfd: one of them has ended */
	struct worker jobs[MOST_JOBS];
} workers = {
	.jobs = { [0 ... MOST_JOBS - 1] = { .name = "job", .fd = -1, .once = 1 } },
};

static struct worker *const all[NR_WORKERS] = {
	&load_worker, &exercise_worker, &pages_worker,
	&workers.jobs[0], &workers.jobs[1], &workers.jobs[2], &workers.jobs[3],
};

int workers_begin(const char *programs)
{
	sigset_t ended;

	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ended, NULL);
	workers.programs = programs;
	workers.children = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
	return workers.children;
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

void worker_start(struct worker *w, uint64_t n, char *const *argv)
{
	char path[256];
	pid_t pid;

	if (w->pid) {
		worker_after(w, n, argv);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", workers.programs, w->name);
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

void worker_stop(struct worker *w, uint64_t n)
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

void workers_ended(void)
{
	struct signalfd_siginfo drop[8];
	unsigned int i;
	int status;

	if (read(workers.children, drop, sizeof(drop)) < 0)
		return;
	for (i = 0; i < NR_WORKERS; i++) {
		struct worker *w = all[i];

		if (!w->pid || waitpid(w->pid, &status, WNOHANG) != w->pid)
			continue;
		if (w->fd >= 0)
			worker_read(w);
		worker_ended(w, status);
	}
}

void workers_poll(struct pollfd wait[NR_WORKERS])
{
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		wait[i] = (struct pollfd){ all[i]->fd, POLLIN, 0 };
}

/* What came before may have ended a worker, or started another. */
void workers_read(const struct pollfd wait[NR_WORKERS])
{
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		if (wait[i].revents && all[i]->fd == wait[i].fd)
			worker_read(all[i]);
}

int worker_has(uint64_t n)
{
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		if (n == all[i]->n || n == all[i]->then)
			return 1;
	return 0;
}

/* One that is idle, or NULL, with the answer that nothing more can be done. */
static struct worker *idle_job(uint64_t n)
{
	struct worker *w = workers.jobs;

	while (w < workers.jobs + MOST_JOBS && w->pid)
		w++;
	if (w < workers.jobs + MOST_JOBS)
		return w;
	reply(n, "error too much is under way");
	return NULL;
}

/* Returns whether this is the job, and no longer the agent. */
static int in_job(struct worker *w, uint64_t n)
{
	pid_t pid = w ? worker_fork(w, n) : -1;

	if (w && pid < 0)
		reply(n, "error cannot fork: %s", strerror(errno));
	return !pid;
}

void job(const struct call *c, void (*run)(const struct call *c, struct json *j))
{
	char text[TEXT_BYTES], line[LINE_BYTES];
	struct json j;

	if (!in_job(idle_job(c->n), c->n))
		return;
	channel_close();
	json_begin(&j, text, sizeof(text));
	run(c, &j);
	json_text(&j);
	snprintf(line, sizeof(line), "%s%s\n", j.failed ? "error " : "", text);
	_exit(write(STDOUT_FILENO, line, strlen(line)) < 0);
}

void job_program(const struct call *c, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", workers.programs, name);
	if (access(path, X_OK)) {
		reply(c->n, "error cannot start %s: %s", path, strerror(errno));
		return;
	}
	if (!in_job(idle_job(c->n), c->n))
		return;
	execv(path, c->argv);
	_exit(127);
}

void worker_ask(struct worker *w, uint64_t n, const char *verb, const char *argument)
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
