// SPDX-License-Identifier: GPL-2.0-or-later
/* The first process: who of those that die was a session. */
int init_main(void);

#define main init_main
#include "../init.c"
#undef main

#include <sys/prctl.h>

#include "tests/check.h"

/* A child that ends at once; with a child of its own, which is left to us and ends as well. */
static pid_t mortal(int orphan)
{
	pid_t pid = fork();

	if (!pid) {
		if (orphan && !fork())
			_exit(0);
		_exit(0);
	}
	return pid;
}

/* Wait until somebody has ended, and reap. */
static void reap_next(void)
{
	siginfo_t info;

	CHECK(!waitid(P_ALL, 0, &info, WEXITED | WNOWAIT));
	reap(-1);
}

int main(void)
{
	pid_t waiting;
	int i;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	session_began(-1);
	CHECK(!sessions.count);
	session_began(mortal(0));
	session_began(mortal(0));
	waiting = fork();
	if (!waiting) {
		pause();
		_exit(0);
	}
	session_began(waiting);
	CHECK(sessions.count == 3);
	for (i = 0; i < 5; i++)
		mortal(1);
	while (sessions.count > 1)
		reap_next();
	/* Orphans are still to come. */
	kill(waiting, SIGKILL);
	while (sessions.count)
		reap_next();
	while (waitpid(-1, NULL, 0) > 0)
		;
	CHECK(!sessions.count);
	return 0;
}
