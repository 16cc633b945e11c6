/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel says about itself: its log, its memory, the module's counters. */
#ifndef FREEPAGE_OBSERVE_H
#define FREEPAGE_OBSERVE_H

#include <ctype.h>
#include <dirent.h>

#include "meminfo.h"

#define MODULE_STATS	"/sys/kernel/debug/freepage_balloon"
#ifndef KMEMLEAK
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#endif
#define WARNING_LEVEL	4

/* Append what fits, and nothing else: the result is always terminated. */
static void __attribute__((format(printf, 3, 4)))
append(char *text, size_t size, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text + used, size - used, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= size - used)
		text[used] = '\0';
}

static void append_string(char *text, size_t size, const char *s)
{
	char quoted[512];
	size_t n = 0;

	for (; *s && n < sizeof(quoted) - 2; s++) {
		if (*s == '"' || *s == '\\')
			quoted[n++] = '\\';
		quoted[n++] = *s >= ' ' && *s <= '~' ? *s : '?';
	}
	quoted[n] = '\0';
	append(text, size, "\"%s\"", quoted);
}

/*
 * A counter is a number; a histogram is numbers separated by blanks; anything
 * else is passed on as a string.
 */
static void append_counter(char *text, size_t size, const char *name)
{
	char path[320], value[256], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), MODULE_STATS "/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, value, sizeof(value) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return;
	while (n > 0 && isspace((unsigned char)value[n - 1]))
		n--;
	value[n] = '\0';
	append(text, size, "%s\"%s\":", text[strlen(text) - 1] == '{' ? "" : ",", name);
	if (strspn(value, "0123456789") == (size_t)n) {
		append(text, size, "%s", value);
	} else if (strspn(value, "0123456789 ") == (size_t)n) {
		for (at = value; (at = strchr(at, ' ')); at++)
			*at = ',';
		append(text, size, "[%s]", value);
	} else {
		append_string(text, size, value);
	}
}

static const char *observe_stats(char *text, size_t size)
{
	DIR *dir = opendir(MODULE_STATS);
	struct dirent *entry;

	*text = '\0';
	append(text, size, "{\"mem_total\":%llu,\"mem_free\":%llu,\"mem_available\":%llu,\"module\":",
	       (unsigned long long)meminfo("MemTotal"), (unsigned long long)meminfo("MemFree"),
	       (unsigned long long)meminfo("MemAvailable"));
	if (!dir) {
		append(text, size, "null}");
		return text;
	}
	append(text, size, "{");
	while ((entry = readdir(dir)))
		/* Room for the closing braces stays. */
		if (entry->d_name[0] != '.')
			append_counter(text, size - 8, entry->d_name);
	closedir(dir);
	append(text, size, "}}");
	return text;
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
static unsigned int observe_leaks(char *text, size_t size)
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
		append(text, size, "kmemleak: %u objects are lost, the first allocated by %s",
		       found, who);
	return found;
}

/*
 * One read of /dev/kmsg is one record: "prefix,sequence,time,flags;message\n".
 * Records up to sequence number `after` are left out; the answer has the newest
 * number, so that whoever asks again can ask for what is new.  Who does is told
 * of leaks as well.
 */
static const char *observe_kmsg(char *text, size_t size, long long after)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned int warnings = 0, count = 0, lost = 0;
	char lines[3600] = "", record[8192];
	long long sequence = -1;

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
		if (count++)
			append(lines, sizeof(lines), ",");
		append_string(lines, sizeof(lines), message);
		if (lines[strlen(lines) - 1] == ',')	/* it did not fit */
			lines[strlen(lines) - 1] = '\0';
	}
	if (fd >= 0)
		close(fd);
	*record = '\0';
	if (after >= 0 && observe_leaks(record, sizeof(record))) {
		warnings++;
		append(lines, sizeof(lines), "%s", count++ ? "," : "");
		append_string(lines, sizeof(lines), record);
	}
	*text = '\0';
	append(text, size, "{\"read\":%s,\"sequence\":%lld,\"warnings\":%u,\"count\":%u,\"lost\":%u,"
	       "\"lines\":[%s]}", fd >= 0 ? "true" : "false", sequence, warnings, count, lost, lines);
	return text;
}

#endif /* FREEPAGE_OBSERVE_H */
