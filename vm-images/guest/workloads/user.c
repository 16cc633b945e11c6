// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A program of the user's own, which fills memory as it likes and says whether it is right.
 *
 *   load user SEED BYTES [keep=BYTES]
 *
 * It comes in an archive of its own, as USER_PROGRAM, and is started with SEED.  By lines of
 * text, on its standard input and output (docs/user.md):
 *
 *   it says   ready           it has filled its memory
 *   we say    write           it is to write, until the next line, and says nothing to that
 *   we say    check           it is to write no more, and to look at all that it has
 *   it says   right           it is as it must be
 *   it says   wrong WORDS     it is not; at any time
 *   it says   work N          it has done so many steps more; at any time while it writes
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>

#include "serve.h"
#include "work.h"
#include "workload.h"

#ifndef USER_PROGRAM
#define USER_PROGRAM	"/user/program"
#endif

static struct {
	pid_t pid;
	int to, from;
	char line[512];
	size_t used;
	uint64_t keep;
	struct region kept;
} user = { .keep = 16 * MIB };

static void stop(void);
static struct tally verify(void);
static struct server server = { .stop = stop, .verify = verify };

static void launch(uint64_t seed)
{
	int in[2], out[2];
	char word[32];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	snprintf(word, sizeof(word), "%" PRIu64, seed);
	user.pid = fork();
	if (user.pid < 0)
		die("fork: %s", strerror(errno));
	if (!user.pid) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		execl(USER_PROGRAM, USER_PROGRAM, word, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	user.to = in[1];
	user.from = out[0];
	/* One that has ended must not end us. */
	signal(SIGPIPE, SIG_IGN);
}

/* What is wrong is counted, and its words are on the console. */
static void found_wrong(const char *words)
{
	server.bad++;
	fprintf(stderr, "workload user: wrong: %s\n", words);
}

/* It is gone, or says no line of the protocol: nothing it says is taken any more. */
static void lost(const char *why)
{
	if (user.from >= 0)
		close(user.from);
	user.from = -1;
	found_wrong(why);
}

static void tell(const char *line)
{
	size_t length = strlen(line);

	if (user.from >= 0 && write(user.to, line, length) != (ssize_t)length)
		lost("it does not read what it is told");
}

/* Take one line of its words: 1 for the answer to `check`. */
static int take(const char *line)
{
	uint64_t steps;

	server.checked++;
	if (!strcmp(line, "right"))
		return 1;
	if (!strncmp(line, "wrong", 5) && (!line[5] || line[5] == ' ')) {
		found_wrong(line[5] ? line + 6 : "it says no more");
		return 1;
	}
	server.checked--;
	if (!strncmp(line, "work ", 5) && !parse_u64(line + 5, &steps)) {
		server.steps += steps;
		work_done(steps);
	} else {
		lost("it says what is no line of the protocol");
	}
	return 0;
}

/* One line, without its end; NULL: there is none, and `user.from` is closed if none will come. */
static const char *next_line(int wait)
{
	static char line[sizeof(user.line)];

	while (user.from >= 0) {
		char *end = memchr(user.line, '\n', user.used);
		struct pollfd in = { user.from, POLLIN, 0 };
		ssize_t n;

		if (end) {
			size_t length = end - user.line;

			memcpy(line, user.line, length);
			line[length] = '\0';
			user.used -= length + 1;
			memmove(user.line, end + 1, user.used);
			return line;
		}
		if (user.used == sizeof(user.line)) {
			lost("it says a line that has no end");
			return NULL;
		}
		if (!wait && poll(&in, 1, 0) <= 0)
			return NULL;
		n = read(user.from, user.line + user.used, sizeof(user.line) - user.used);
		if (n > 0)
			user.used += n;
		else if (!n || errno != EINTR)
			lost("it has ended");
	}
	return NULL;
}

static void check(void)
{
	const char *line;

	tell("check\n");
	while ((line = next_line(1)) && !take(line))
		;
}

static void stop(void)
{
	check();
}

static struct tally verify(void)
{
	check();
	return check_all(&user.kept);
}

static uint64_t load(const struct load *load, struct tally *t)
{
	const char *line;

	demand_size(user.keep);
	region_load(&user.kept, load->seed, user.keep, 1, t);
	launch(load->seed);
	line = next_line(1);
	if (!line || strcmp(line, "ready"))
		die("the user's program: expected 'ready', got '%s'", line ? line : "its end");
	tell("write\n");
	return 0;
}

static int events(struct pollfd *in, int *timeout)
{
	(void)timeout;
	in[0] = (struct pollfd){ user.from, POLLIN, 0 };
	return user.from >= 0;
}

static void work(const struct pollfd *in, int ready)
{
	const char *line;

	(void)in, (void)ready;
	while ((line = next_line(0)))
		take(line);
}

static const struct workload_option options[] = { { "keep", .number = &user.keep }, { 0 } };

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(user, run);
