// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A build that does not end, for a guest that is about to be migrated.
 *
 *   load compile SEED BYTES [jobs=N] [files=N] [keep=BYTES]
 *
 * The compiler and the sources of a C library come in an archive of their own
 * (vm-images/compile.yaml): /build/list names the files, /build/flags the
 * compiler's arguments.
 *
 * Loading compiles `files` of them, drawn by the seed, once, and keeps a digest of
 * each object.  After that they are compiled over and over, `jobs` at a time, and
 * every object must come out as it did before: a page of a compiler, of a source
 * or of a process that a migration broke shows in what is made of it.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "serve.h"
#include "work.h"
#include "workload.h"

#ifndef COMPILER
#define COMPILER	"/usr/bin/gcc-12"
#define BUILD		"/build"
#endif
#ifndef PLACE
#define PLACE		"/tmp"		/* of objects */
#endif
#define MOST_FILES	4096
#define MOST_FLAGS	128
#define MOST_JOBS	64

struct unit {
	char *source;
	uint64_t digest;
	int known;
};

struct job {
	pid_t pid;
	unsigned int unit;
};

static struct {
	struct unit units[MOST_FILES];
	char *flags[MOST_FLAGS];
	unsigned int count, next, flag_count;
	uint64_t jobs, files, keep, told;
	int signals;
	struct job running[MOST_JOBS];
	struct region kept;
	int stopped;
} build = { .jobs = 2, .files = 12, .keep = 16 * MIB };

static void stop(void);
static struct tally verify(void);
static struct server server = { .stop = stop, .verify = verify };

static unsigned int read_lines(const char *path, char **lines, unsigned int most)
{
	FILE *file = fopen(path, "re");
	unsigned int count = 0;
	char line[512];

	if (!file)
		die("%s: %s (is this the image with a compiler?)", path, strerror(errno));
	while (count < most && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (*line && !(lines[count++] = strdup(line)))
			die("out of memory");
	}
	fclose(file);
	return count;
}

/* Of all files, `files` drawn by the seed: the same in every guest with this seed. */
static void choose(uint64_t seed, uint64_t files)
{
	static char *all[MOST_FILES];
	unsigned int count = read_lines(BUILD "/list", all, MOST_FILES), i;

	build.flag_count = read_lines(BUILD "/flags", build.flags, MOST_FLAGS - 8);
	if (!count)
		die(BUILD "/list is empty");
	for (i = 0; i < files && i < count; i++) {
		unsigned int other = i + mix64(seed + (i + 1) * GOLDEN) % (count - i);
		char *chosen = all[other];

		all[other] = all[i];
		build.units[build.count++].source = chosen;
	}
}

static void object_path(unsigned int slot, char *path, size_t size)
{
	snprintf(path, size, PLACE "/compile.%u.o", slot);
}

static void start(unsigned int slot)
{
	struct job *job = &build.running[slot];
	char *argv[MOST_FLAGS], object[512];
	unsigned int i, argc = 0;

	job->unit = build.next++ % build.count;
	object_path(slot, object, sizeof(object));
	job->pid = fork();
	if (job->pid < 0)
		die("fork: %s", strerror(errno));
	if (job->pid)
		return;
	argv[argc++] = COMPILER;
	for (i = 0; i < build.flag_count; i++)
		argv[argc++] = build.flags[i];
	argv[argc++] = "-c";
	argv[argc++] = "-o";
	argv[argc++] = object;
	argv[argc++] = build.units[job->unit].source;
	argv[argc] = NULL;
	/* Standard output carries answers. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (!chdir(BUILD "/src"))
		execv(COMPILER, argv);
	_exit(127);
}

/* Of what the compiler wrote; 0 where there is nothing. */
static uint64_t digest_of(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char bytes[65536];
	uint64_t digest = 0;
	ssize_t n, i;

	while (fd >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0)
		for (i = 0; i < n; i++)
			digest = mix64(digest + bytes[i] + GOLDEN);
	if (fd >= 0)
		close(fd);
	unlink(path);
	return digest;
}

static void ended(unsigned int slot, int status)
{
	struct job *job = &build.running[slot];
	struct unit *unit = &build.units[job->unit];
	uint64_t digest;
	char object[512];

	object_path(slot, object, sizeof(object));
	digest = digest_of(object);
	job->pid = 0;
	server.steps++;
	if (status || !digest) {
		if (!unit->known)
			die("%s did not compile: status 0x%x", unit->source, status);
		digest = ~unit->digest;
	}
	if (!unit->known) {
		unit->digest = digest;
		unit->known = 1;
		return;
	}
	server.checked++;
	server.bad += digest != unit->digest;
}

/* `flags` as waitpid() has them: without WNOHANG it waits for all. */
static void reap(int flags)
{
	unsigned int slot;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, flags)) > 0)
		for (slot = 0; slot < build.jobs; slot++)
			if (build.running[slot].pid == pid)
				ended(slot, status);
}

static void fill(void)
{
	unsigned int slot;

	for (slot = 0; slot < build.jobs; slot++)
		if (!build.running[slot].pid && !build.stopped)
			start(slot);
}

/* Until every chosen file was compiled once. */
static void compile_all_once(void)
{
	struct signalfd_siginfo drop[8];

	while (server.steps < build.count) {
		unsigned int slot;

		for (slot = 0; slot < build.jobs && build.next < build.count; slot++)
			if (!build.running[slot].pid)
				start(slot);
		if (read(build.signals, drop, sizeof(drop)) < 0 && errno != EINTR)
			die("signalfd: %s", strerror(errno));
		reap(WNOHANG);
	}
}

/* What runs ends by itself, and is checked: it was there all the while. */
static void stop(void)
{
	build.stopped = 1;
	reap(0);
}

static struct tally verify(void)
{
	return check_all(&build.kept);
}

static uint64_t load(const struct load *load, struct tally *t)
{
	sigset_t child;

	if (!build.jobs || build.jobs > MOST_JOBS || !build.files)
		die("that is no number of jobs or files");
	demand_size(build.keep);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	build.signals = signalfd(-1, &child, SFD_CLOEXEC);
	region_load(&build.kept, load->seed, build.keep, 1, t);
	choose(load->seed, build.files);
	compile_all_once();
	build.told = server.steps;
	return 0;
}

static int events(struct pollfd *in, int *timeout)
{
	(void)timeout;
	fill();
	in[0] = (struct pollfd){ build.signals, POLLIN, 0 };
	return 1;
}

static void work(const struct pollfd *in, int ready)
{
	struct signalfd_siginfo drop[8];

	(void)ready;
	if (in[0].revents && read(build.signals, drop, sizeof(drop)) < 0)
		die("signalfd: %s", strerror(errno));
	reap(WNOHANG);
	work_done(server.steps - build.told);
	build.told = server.steps;
}

static const struct workload_option options[] = {
	{ "jobs", .number = &build.jobs }, { "files", .number = &build.files },
	{ "keep", .number = &build.keep }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(compile, run);
