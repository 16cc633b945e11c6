// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "controls.h"
#include "observe.h"
#include "words.h"

#define TEST	MODULE_STATS "/test"

void standing_end(struct standing *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->n = 0;
}

/* What a failed access to a file of the controls means. */
static void controls_error(struct json *j, const char *name)
{
	int error = errno;

	if (access(MODULE_STATS, F_OK))
		json_fail(j, "the driver with free page info is not loaded, or has no device");
	else if (access(TEST, F_OK))
		json_fail(j, "this module has no controls for tests (guest.module: test)");
	else if (error == ENOENT || error == EINVAL)
		json_fail(j, "%s: the module knows no such thing", name);
	else if (error == ESRCH)
		json_fail(j, "%s: nothing stands", name);
	else
		json_fail(j, "%s: %s", name, strerror(error));
}

void standing_begin(struct standing *s, uint64_t n, const char *point, struct json *j)
{
	char path[160];

	snprintf(path, sizeof(path), TEST "/held/%s", point);
	s->fd = strchr(point, '/') ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0) {
		errno = strchr(point, '/') ? ENOENT : errno;
		controls_error(j, point);
		return;
	}
	s->n = n;
}

int standing_read(struct standing *s, struct json *j)
{
	unsigned long long id, entries;
	char line[128], point[32];
	ssize_t n = pread(s->fd, line, sizeof(line) - 1, 0);

	if (n < 0) {
		json_fail(j, "the driver has let go of its device");
		return 1;
	}
	line[n] = '\0';
	if (sscanf(line, "%31s %llu %llu", point, &id, &entries) != 3)
		return 0;
	json_object(j, NULL);
	json_string(j, "point", point);
	json_number(j, "id", id);
	json_number(j, "entries", entries);
	json_end(j);
	return 1;
}

/* One write, of all words; 0 or -1 with errno. */
static int controls_write(const char *name, int argc, char **argv)
{
	char path[160], line[4096];
	size_t used = 0;
	int i;

	for (i = 0; i < argc && used < sizeof(line); i++)
		used += snprintf(line + used, sizeof(line) - used, "%s%s", i ? " " : "", argv[i]);
	if (used >= sizeof(line)) {
		errno = E2BIG;
		return -1;
	}
	snprintf(path, sizeof(path), TEST "/%s", name);
	return write_file(path, line);
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

int controls_do(int argc, char **argv, struct json *j)
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
		/* Nothing stood: an answer, not an error. */
		if (!failed || errno == ESRCH) {
			json_object(j, NULL);
			json_bool(j, "released", !failed);
			json_end(j);
			return 0;
		}
	} else {
		return -1;
	}
	if (failed)
		controls_error(j, argc > 1 ? argv[1] : verb);
	json_object(j, NULL);
	json_end(j);
	return 0;
}
