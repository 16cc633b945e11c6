// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A source of random numbers.
 *
 *   rng begin    reads; goes on reading in the background if told "load"
 *   rng check    reads again
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "words.h"

#define HWRNG	"/dev/hwrng"
#define CURRENT	"/sys/class/misc/hw_random/rng_current"
/* More than driver and kernel keep: some of it has to come from the device now. */
#define BYTES	2048

static void read_whole(int fd, unsigned char *to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = read(fd, to + done, bytes - done);

		if (n > 0)
			done += n;
		else if (n < 0 && errno != EINTR)
			wrong("reading " HWRNG ": %s", strerror(errno));
	}
}

static void go_on(struct shared *shared, void *argument)
{
	static unsigned char page[4096];
	int fd = *(int *)argument;

	for (;;) {
		ssize_t n = read(fd, page, sizeof(page));

		if (n > 0)
			shared->count += n;
		else if (errno != EINTR)
			shared->failed = errno;
	}
}

static void run_rng(int argc, char **argv)
{
	static unsigned char first[BYTES], second[BYTES];
	struct shared *shared = shared_of("rng");
	char name[64];
	int fd;

	read_file(CURRENT, name, sizeof(name));
	if (strncmp(name, "virtio_rng", 10))
		wrong("the kernel takes its random numbers from %s", name[0] ? name : "nowhere");
	fd = open(HWRNG, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		unable(HWRNG ": %s", strerror(errno));
	if (shared) {
		uint64_t before = shared->count;

		wait_for_work(shared, before);
		did("the reader in the background goes on");
	}
	read_whole(fd, first, BYTES);
	read_whole(fd, second, BYTES);
	if (!memcmp(first, second, BYTES) || !memcmp(first, first + 32, 32))
		wrong("the same bytes come again");
	did("read %d bytes", 2 * BYTES);
	value(first, 8);
	if (argc > 1 && !strcmp(argv[1], "load") && !shared)
		in_background("rng", go_on, &fd);
}

DEVICE(rng, run_rng);
