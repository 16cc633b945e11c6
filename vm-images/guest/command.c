// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"

#define COMMAND_KEPT	(1 << 20)	/* bytes of output; the host reads no more */
#define COMMAND_PIECE	2700		/* bytes of output in one answer, as base64 */

static uint64_t kept;			/* the call whose output is there; 0: none */

static void command_path(char *path, size_t size, uint64_t n)
{
	snprintf(path, size, "/tmp/command.%" PRIu64, n);
}

void command_next(uint64_t n)
{
	char path[64];

	if (kept) {
		command_path(path, sizeof(path), kept);
		unlink(path);
	}
	kept = n;
}

static char *command_word(const char *text)
{
	size_t length, i;
	char *word;

	if (*text++ != 'x')
		return NULL;
	length = strlen(text);
	if (length % 2 || strspn(text, "0123456789abcdef") != length)
		return NULL;
	word = malloc(length / 2 + 1);
	if (!word)
		return NULL;
	for (i = 0; i < length / 2; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1], 0 };

		word[i] = strtoul(digits, NULL, 16);
	}
	word[i] = '\0';
	return word;
}

static void command_exec(int out, char **words)
{
	int null = open("/dev/null", O_RDONLY);

	setsid();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	signal(SIGPIPE, SIG_DFL);
	execvp(words[0], words);
	dprintf(STDERR_FILENO, "%s: %s\n", words[0], strerror(errno));
	_exit(127);
}

/*
 * Wait for its end, at most so many seconds; then it is killed, with what it has
 * started.  Returns whether it was.
 */
static int command_wait(pid_t pid, int seconds, int *status)
{
	struct timespec patience = { .tv_sec = seconds };
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	/* Blocked since before the fork: an end that came earlier is still pending. */
	if (sigtimedwait(&child, NULL, &patience) >= 0 || errno != EAGAIN) {
		waitpid(pid, status, 0);
		return 0;
	}
	kill(-pid, SIGKILL);
	waitpid(pid, status, 0);
	return 1;
}

void command_run(uint64_t n, int seconds, int count, char *const *hex, struct json *j)
{
	char *words[64] = { NULL }, path[64];
	struct stat written = { 0 };
	int i, out, status = 0, late;
	sigset_t child;
	pid_t pid;

	for (i = 0; i < count && i < 63; i++) {
		words[i] = command_word(hex[i]);
		if (!words[i]) {
			json_fail(j, "word %d is not hexadecimal", i);
			return;
		}
	}
	command_path(path, sizeof(path), n);
	out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (out < 0) {
		json_fail(j, "%s: %s", path, strerror(errno));
		return;
	}
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	pid = fork();
	if (!pid) {
		sigprocmask(SIG_UNBLOCK, &child, NULL);
		command_exec(out, words);
	}
	if (pid < 0) {
		json_fail(j, "cannot fork: %s", strerror(errno));
		return;
	}
	late = command_wait(pid, seconds, &status);
	fstat(out, &written);
	json_object(j, NULL);
	json_number(j, "call", n);
	json_number(j, "status", WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	json_number(j, "signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	json_bool(j, "late", late);
	json_number(j, "bytes", written.st_size);
	json_end(j);
}

static void command_base64(const unsigned char *in, size_t length, char *out)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t i;

	for (i = 0; i < length; i += 3) {
		size_t left = length - i;
		uint32_t word = in[i] << 16 | (left > 1 ? in[i + 1] << 8 : 0) |
				(left > 2 ? in[i + 2] : 0);

		*out++ = digits[word >> 18];
		*out++ = digits[word >> 12 & 63];
		*out++ = left > 1 ? digits[word >> 6 & 63] : '=';
		*out++ = left > 2 ? digits[word & 63] : '=';
	}
	*out = '\0';
}

void command_output(uint64_t n, uint64_t from, struct json *j)
{
	unsigned char piece[COMMAND_PIECE];
	ssize_t got = -1;
	char path[64], text[COMMAND_PIECE / 3 * 4 + 8];
	int fd;

	command_path(path, sizeof(path), n);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && from < COMMAND_KEPT)
		got = pread(fd, piece, sizeof(piece), from);
	if (fd >= 0)
		close(fd);
	if (got < 0) {
		json_fail(j, "there is no output of call %" PRIu64, n);
		return;
	}
	command_base64(piece, got, text);
	json_object(j, NULL);
	json_string(j, "data", text);
	json_end(j);
}
