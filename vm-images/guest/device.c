// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Uses a device of the guest's, and says whether it answers.
 *
 * Built of this file and all in devices/; installs as /bin/device.
 *
 *   device NAME ACTION [WORD..]
 *
 * Standard output carries one JSON object: {"wrong":"","silent":false,"did":"..","value":".."},
 * or "error ..." for what this guest cannot do at all.
 *
 * A device that is dead may keep for ever whoever waits for it.  So a child does the
 * work, and the parent waits no longer than PATIENCE seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"
#include "device.h"
#include "pci.h"

#define SHARED_FILE	"/run/device-"

/* Made by the linker around the entries of device.h. */
extern const struct device *const __start_devices[] __attribute__((weak));
extern const struct device *const __stop_devices[] __attribute__((weak));

static char deeds[256], hex[513];

static void say(int silent, const char *what_is_wrong)
{
	char text[2000];
	struct json j;

	json_begin(&j, text, sizeof(text));
	json_object(&j, NULL);
	json_string(&j, "wrong", what_is_wrong);
	json_bool(&j, "silent", silent);
	json_string(&j, "did", deeds);
	json_string(&j, "value", hex);
	json_end(&j);
	answer("%s%s", j.failed ? "error " : "", json_text(&j));
}

void did(const char *format, ...)
{
	size_t used = strlen(deeds);
	va_list args;

	if (used && used < sizeof(deeds) - 3)
		used += sprintf(deeds + used, ", ");
	va_start(args, format);
	vsnprintf(deeds + used, sizeof(deeds) - used, format, args);
	va_end(args);
}

void value(const void *bytes, size_t count)
{
	size_t used = strlen(hex), i;

	for (i = 0; i < count && used + 2 < sizeof(hex); i++, used += 2)
		sprintf(hex + used, "%02x", ((const unsigned char *)bytes)[i]);
}

void wrong(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say(0, text);
	exit(0);
}

void unable(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	answer("error %s", text);
	exit(0);
}

void breathe(void)
{
	poll(NULL, 0, 10);
}

uint64_t number_word(const char *word)
{
	char *end;
	uint64_t number = strtoull(word, &end, 0);

	if (!*word || *end)
		unable("not a number: %s", word);
	return number;
}

static struct shared *map_shared(const char *name, int flags)
{
	char path[128];
	void *place;
	int fd;

	snprintf(path, sizeof(path), SHARED_FILE "%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	if (fd < 0)
		return NULL;
	if ((flags & O_CREAT) && ftruncate(fd, sizeof(struct shared)))
		unable("%s: %s", path, strerror(errno));
	place = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return place == MAP_FAILED ? NULL : place;
}

struct shared *shared_of(const char *name)
{
	return map_shared(name, 0);
}

void in_background(const char *name, void (*run)(struct shared *, void *), void *argument)
{
	struct shared *shared = map_shared(name, O_CREAT | O_EXCL);
	pid_t pid;

	if (!shared)
		unable("%s: %s", name, strerror(errno));
	pid = fork();
	if (pid < 0)
		unable("fork: %s", strerror(errno));
	if (pid)
		return;
	/* Whoever waits for our output must not wait for this process's. */
	setsid();
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	run(shared, argument);
	_exit(0);
}

void give_order(struct shared *shared, uint64_t order, uint64_t word)
{
	uint64_t before = shared->done;

	shared->word = word;
	shared->order = order;
	while (shared->done == before && !shared->failed)
		breathe();
	if (shared->failed)
		wrong("%s", strerror(shared->failed));
}

void wait_for_work(struct shared *shared, uint64_t since)
{
	while (shared->count == since && !shared->failed)
		breathe();
	if (shared->failed)
		wrong("%s", strerror(shared->failed));
}

void find_below(const char *address, const char *kind, const char *prefix, char *name, size_t size)
{
	if (pci_find_below(address, kind, prefix, name, size))
		wrong("the guest has no PCI device %s", address);
}

volatile void *map_bar(const char *address, int bar, size_t bytes)
{
	char path[160];
	void *place;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/enable", address);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		wrong("the guest has no PCI device %s", address);
	/* Refused where firmware or another call has done it already. */
	if (write(fd, "1", 1) < 0 && errno != EBUSY && errno != EIO)
		unable("%s: %s", path, strerror(errno));
	close(fd);
	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource%d", address, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		wrong("%s: %s", path, strerror(errno));
	place = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (place == MAP_FAILED)
		unable("%s: %s", path, strerror(errno));
	close(fd);
	return place;
}

static void in_child(int argc, char **argv)
{
	const struct device *const *entry;

	for (entry = __start_devices; entry < __stop_devices; entry++)
		if (!strcmp(argv[1], (*entry)->name)) {
			(*entry)->run(argc - 2, argv + 2);
			say(0, "");
			exit(0);
		}
	unable("unknown device: %s (the image has no such device)", argv[1]);
}

int main(int argc, char **argv)
{
	struct pollfd wait = { .events = POLLIN };
	char line[2048];
	int pair[2];
	ssize_t n;
	pid_t pid;

	if (argc < 3)
		unable("expected: device NAME ACTION [WORD..]");
	signal(SIGPIPE, SIG_IGN);
	if (pipe(pair))
		unable("pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		unable("fork: %s", strerror(errno));
	if (!pid) {
		dup2(pair[1], STDOUT_FILENO);
		close(pair[0]);
		close(pair[1]);
		in_child(argc, argv);
	}
	close(pair[1]);
	wait.fd = pair[0];
	n = poll(&wait, 1, PATIENCE * 1000);
	if (!n) {
		snprintf(line, sizeof(line), "no answer within %d s", PATIENCE);
		say(1, line);
		kill(pid, SIGKILL);
		return 0;
	}
	n = n < 0 ? 0 : read(pair[0], line, sizeof(line));
	if (n <= 0)
		unable("the look at %s ended without a word", argv[1]);
	return write(STDOUT_FILENO, line, n) != n;
}
