/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The module's controls for tests, where it was built with them: holds of its
 * walk, and ways to make it go wrong.  See guest-module/hold.c and misbehave.c for the files.
 */
#ifndef FREEPAGE_CONTROLS_H
#define FREEPAGE_CONTROLS_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "observe.h"

/* A call that waits for the module to stand at a point. */
struct standing {
	int fd;			/* -1: nobody waits */
	uint64_t n;
};

static void standing_end(struct standing *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->n = 0;
}

/* What a failed access to a file of the controls means. */
static void controls_error(char *text, size_t size, const char *name)
{
	int error = errno;

	if (access(MODULE_STATS, F_OK))
		snprintf(text, size, "the driver with free page info is not loaded, or has no device");
	else if (access(MODULE_STATS "/test", F_OK))
		snprintf(text, size, "this module has no controls for tests (guest.module: test)");
	else if (error == ENOENT || error == EINVAL)
		snprintf(text, size, "%s: the module knows no such thing", name);
	else if (error == ESRCH)
		snprintf(text, size, "%s: nothing stands", name);
	else
		snprintf(text, size, "%s: %s", name, strerror(error));
}

/* Returns 0, or -1 with the reason in text. */
static int standing_begin(struct standing *s, uint64_t n, const char *point, char *text,
			  size_t size)
{
	char path[160];

	snprintf(path, sizeof(path), MODULE_STATS "/test/held/%s", point);
	s->fd = strchr(point, '/') ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0) {
		errno = strchr(point, '/') ? ENOENT : errno;
		controls_error(text, size, point);
		return -1;
	}
	s->n = n;
	return 0;
}

/* 1: it stands; 0: not (any more); -1: it never will, with the reason in text. */
static int standing_read(struct standing *s, char *text, size_t size)
{
	unsigned long long id, entries;
	char line[128], point[32];
	ssize_t n = pread(s->fd, line, sizeof(line) - 1, 0);

	if (n < 0) {
		snprintf(text, size, "the driver has let go of its device");
		return -1;
	}
	line[n] = '\0';
	if (sscanf(line, "%31s %llu %llu", point, &id, &entries) != 3)
		return 0;
	snprintf(text, size, "{\"point\":\"%s\",\"id\":%llu,\"entries\":%llu}", point, id, entries);
	return 1;
}

/* One write, of all words; 0 or -1 with errno. */
static int controls_write(const char *name, int argc, char **argv)
{
	char path[160], line[4096] = "";
	ssize_t length, n;
	int fd, i, error;

	for (i = 0; i < argc; i++)
		append(line, sizeof(line), "%s%s", i ? " " : "", argv[i]);
	snprintf(path, sizeof(path), MODULE_STATS "/test/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	length = strlen(line);
	n = write(fd, line, length);
	error = errno;
	close(fd);
	errno = error;
	return n == length ? 0 : -1;
}

static int write_word(const char *name, const char *word)
{
	char text[64], *argv[] = { text };

	snprintf(text, sizeof(text), "%s", word);
	return controls_write(name, 1, argv);
}

static int controls_hold(int argc, char **argv)
{
	if (argc == 3 && (strcmp(argv[1], "mid-walk") || write_word("mid_entries", argv[2])))
		return -1;
	return write_word("hold", argv[1]);
}

static int controls_unhold(int argc, char **argv)
{
	char word[64] = "none";

	if (argc == 2)
		snprintf(word, sizeof(word), "-%s", argv[1]);
	return write_word("hold", word);
}

/*
 * Returns 0 with the answer in text, 1 with an error in text, or -1 when the verb
 * is not one of these.
 */
static int controls_do(int argc, char **argv, char *text, size_t size)
{
	const char *verb = argv[0];
	int failed;

	errno = EINVAL;
	if (!strcmp(verb, "hold") && (argc == 2 || argc == 3)) {
		failed = controls_hold(argc, argv);
	} else if (!strcmp(verb, "unhold") && argc <= 2) {
		failed = controls_unhold(argc, argv);
	} else if (!strcmp(verb, "tune") && argc == 3 && !strchr(argv[1], '/')) {
		failed = write_word(argv[1], argv[2]);
	} else if (!strcmp(verb, "misbehave") && argc >= 2) {
		failed = controls_write("misbehave", argc - 1, argv + 1);
	} else if (!strcmp(verb, "take") && argc == 2) {
		failed = write_word("take", argv[1]);
	} else if (!strcmp(verb, "behave") && argc == 1) {
		failed = write_word("misbehave", "none");
	} else if (!strcmp(verb, "release") && argc == 1) {
		failed = write_word("release", "1");
		snprintf(text, size, "{\"released\":%s}", failed ? "false" : "true");
		/* Nothing stood: an answer, not an error. */
		if (!failed || errno == ESRCH)
			return 0;
	} else {
		return -1;
	}
	if (failed)
		controls_error(text, size, argc > 1 ? argv[1] : verb);
	else
		snprintf(text, size, "{}");
	return !!failed;
}

#endif /* FREEPAGE_CONTROLS_H */
