// SPDX-License-Identifier: GPL-2.0-or-later
/* The agent's end of the channel, on a terminal: whole lines, broken ones, and the same call twice. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include "channel.h"
#include "tests/check.h"
#include "verbs.h"
#include "worker.h"

static int host;		/* the other end of the terminal */

static void tell(const char *bytes)
{
	CHECK(write(host, bytes, strlen(bytes)) == (ssize_t)strlen(bytes));
	channel_read();
}

/* The next line that the host gets. */
static const char *hear(void)
{
	static char line[LINE_BYTES];
	size_t used = 0;

	while (read(host, line + used, 1) == 1 && line[used] != '\n')
		CHECK(++used < sizeof(line));
	line[used] = '\0';
	return line;
}

static int begins(const char *line, const char *with)
{
	return !strncmp(line, with, strlen(with));
}

static void lines(void)
{
	char first[LINE_BYTES];

	verbs_greet();
	CHECK(begins(hear(), "ready {\"protocol\":1,\"driver\":\"info\",\"release\":\""));
	tell("5 ping\n");
	strcpy(first, hear());
	CHECK(begins(first, "5 ok {\"protocol\":1,"));
	/* Asked again, it says the same, however much later it is. */
	tell("5 ping\n");
	CHECK_TEXT(hear(), first);
	tell("6 pi");
	tell("ng\n");
	CHECK(begins(hear(), "6 ok "));
	/* What came before a NAK is forgotten. */
	tell("7 rubb\x15" "7 nothing\n");
	CHECK_TEXT(hear(), "7 error unknown verb or wrong arguments");
	tell("8 ping too many\n");
	CHECK_TEXT(hear(), "8 error unknown verb or wrong arguments");
	/* What it does needs root; that it does nothing without its words is seen here. */
	tell("13 wake 5 0011\n");
	CHECK_TEXT(hear(), "13 error expected: wake NANOSECONDS HEX");
	tell("9 verify\n");
	CHECK_TEXT(hear(), "9 error nothing is loaded");
	tell("10 clock\n");
	CHECK(begins(hear(), "10 ok {\"us\":"));
	tell("11 watch 0\n");
	CHECK_TEXT(hear(), "11 error unknown verb or wrong arguments");
	tell("12 held mid-walk\n");
	CHECK(begins(hear(), "12 error "));
}

static void nonsense(void)
{
	char longest[LINE_BYTES + 100];
	int i;

	tell("ping\n");
	CHECK_TEXT(hear(), "! a line without a number and a verb");
	tell("0 ping\n");
	CHECK_TEXT(hear(), "! a line without a number and a verb");
	tell("99999999999999999999999 \n");
	CHECK(strstr(hear(), "error no verb"));
	tell("20 \x01\n");
	CHECK_TEXT(hear(), "! a line that is too long");
	for (i = 0; i < 100; i++)
		sprintf(longest + 2 * i, " x");
	memcpy(longest, "21", 2);
	strcat(longest, "\n");
	tell(longest);
	CHECK_TEXT(hear(), "21 error no verb, or too many arguments");
	memset(longest, 'a', sizeof(longest));
	for (i = 0; i < (int)sizeof(longest) - 100; i += 500) {
		CHECK(write(host, longest, 500) == 500);
		channel_read();
	}
	tell("\n");
	CHECK_TEXT(hear(), "! a line that is too long");
	tell("22 ping\n");
	CHECK(begins(hear(), "22 ok "));
}

/* A command runs in a job: its answer comes by the worker. */
static void commands(int children)
{
	struct pollfd wait[NR_WORKERS + 1];
	char out[LINE_BYTES];

	tell("30 run 60 x6563686f x68656c6c6f\n");	/* echo hello */
	CHECK(worker_has(30));
	while (worker_has(30)) {
		workers_poll(wait);
		/* It says no more before it ends, and its end is told by this. */
		wait[NR_WORKERS] = (struct pollfd){ children, POLLIN, 0 };
		CHECK(poll(wait, NR_WORKERS + 1, -1) > 0);
		workers_read(wait);
		if (wait[NR_WORKERS].revents)
			workers_ended();
	}
	CHECK_TEXT(hear(), "30 ok {\"call\":30,\"status\":0,\"signal\":0,\"late\":false,\"bytes\":6}");
	tell("31 output 30 0\n");
	CHECK_TEXT(hear(), "31 ok {\"data\":\"aGVsbG8K\"}");
	tell("32 output 29 0\n");
	CHECK_TEXT(hear(), "32 error there is no output of call 29");
	snprintf(out, sizeof(out), "/tmp/command.%d", 30);
	CHECK(!unlink(out));
}

int main(void)
{
	char path[64];
	int theirs, children;

	CHECK(!openpty(&host, &theirs, path, NULL, NULL));
	verbs_begin("info");
	children = workers_begin("/nonexistent");
	channel_open(path, &verbs_callee);
	lines();
	nonsense();
	commands(children);
	return 0;
}
