// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "observe.h"
#include "words.h"

#ifndef KMEMLEAK
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#endif
#define WARNING_LEVEL	4
/* What is left of a line behind the messages: their number, and how many are lost. */
#define BEHIND		256

/*
 * A counter is a number; a histogram is numbers separated by blanks; anything
 * else is passed on as a string.
 */
static void tell_counter(struct json *j, const char *name)
{
	char path[320], value[256], *at, *rest = NULL;
	size_t n;

	snprintf(path, sizeof(path), MODULE_STATS "/%s", name);
	if (read_file(path, value, sizeof(value)) || !*value)
		return;
	for (n = strlen(value); n > 0 && isspace((unsigned char)value[n - 1]); n--)
		value[n - 1] = '\0';
	if (*value && strspn(value, "0123456789") == n) {
		json_number(j, name, strtoull(value, NULL, 10));
	} else if (*value && strspn(value, "0123456789 ") == n) {
		json_list(j, name);
		for (at = strtok_r(value, " ", &rest); at; at = strtok_r(NULL, " ", &rest))
			json_number(j, NULL, strtoull(at, NULL, 10));
		json_end(j);
	} else {
		json_string(j, name, value);
	}
}

void observe_stats(struct json *j)
{
	DIR *dir = opendir(MODULE_STATS);
	struct dirent *entry;

	json_object(j, NULL);
	json_number(j, "mem_total", meminfo("MemTotal"));
	json_number(j, "mem_free", meminfo("MemFree"));
	json_number(j, "mem_available", meminfo("MemAvailable"));
	if (!dir) {
		json_null(j, "module");
		json_end(j);
		return;
	}
	json_object(j, "module");
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.') {
			struct json_place before = json_here(j);

			tell_counter(j, entry->d_name);
			json_back(j, before, 8);
		}
	closedir(dir);
	json_end(j);
	json_end(j);
}

static int is_trouble(const char *message)
{
	static const char *const signs[] = {
		"WARNING", "BUG", "Oops", "Call Trace", "bad page", "Bad page", "orrupt",
		"general protection", "Kernel panic", "KASAN", "UBSAN", "lockdep", "invalid opcode",
		"unable to handle", "use-after-free", "soft lockup", "hung task", "blocked for more",
		"rcu_preempt detected stalls", "Out of memory", "oom-kill",
	};
	size_t i;

	for (i = 0; i < sizeof(signs) / sizeof(*signs); i++)
		if (strstr(message, signs[i]))
			return 1;
	return 0;
}

/*
 * Have a kernel that looks for its leaks (kmemleak) do so now, and say how many
 * objects nobody points to any more, and who allocated the first.  It believes
 * in a leak only when a second look finds the object as the first one did.
 * Zero, and nothing said, of any other kernel.
 */
static unsigned int count_leaks(char *text, size_t size)
{
	char record[256], who[64] = "?";
	unsigned int found = 0;
	FILE *file;
	int i, fd;

	for (i = 0; i < 2; i++) {
		fd = open(KMEMLEAK, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			return 0;
		if (write(fd, "scan", 4) != 4)
			i = 2;
		close(fd);
	}
	file = fopen(KMEMLEAK, "re");
	while (file && fgets(record, sizeof(record), file)) {
		if (!strncmp(record, "unreferenced object", 19))
			found++;
		else if (found == 1 && strstr(record, "comm \""))
			sscanf(strstr(record, "comm \"") + 6, "%63[^\"]", who);
	}
	if (file)
		fclose(file);
	if (found)
		snprintf(text, size, "kmemleak: %u objects are lost, the first allocated by %s",
		       found, who);
	return found;
}

/* A message, if there is room for it. */
static void tell_message(struct json *j, const char *message)
{
	struct json_place before = json_here(j);

	json_string(j, NULL, message);
	json_back(j, before, BEHIND);
}

/* One read of /dev/kmsg is one record: "prefix,sequence,time,flags;message\n". */
void observe_kmsg(struct json *j, long long after)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned int warnings = 0, count = 0, lost = 0;
	char record[8192];
	long long sequence = -1;

	json_object(j, NULL);
	json_bool(j, "read", fd >= 0);
	json_list(j, "lines");
	while (fd >= 0) {
		ssize_t n = read(fd, record, sizeof(record) - 1);
		char *message, *end;
		long level;

		if (n < 0 && errno == EPIPE) {
			lost++;		/* overwritten before it was read */
			continue;
		}
		if (n <= 0)
			break;
		record[n] = '\0';
		record[strcspn(record, "\n")] = '\0';
		level = strtol(record, &end, 10) & 7;
		sequence = *end == ',' ? strtoll(end + 1, NULL, 10) : sequence;
		message = strchr(record, ';');
		if (!message || level > WARNING_LEVEL || sequence <= after)
			continue;
		warnings++;
		if (!is_trouble(++message))
			continue;
		count++;
		tell_message(j, message);
	}
	if (fd >= 0)
		close(fd);
	if (after >= 0 && count_leaks(record, sizeof(record))) {
		warnings++;
		count++;
		tell_message(j, record);
	}
	json_end(j);
	json_signed(j, "sequence", sequence);
	json_number(j, "warnings", warnings);
	json_number(j, "count", count);
	json_number(j, "lost", lost);
	json_end(j);
}
