// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "wake.h"
#include "words.h"

#define RANDOM_DEVICE	"/dev/urandom"
#define SEED_BYTES	32
#define NS_PER_SECOND	1000000000ULL

struct seed {
	struct rand_pool_info head;	/* ends in an array without a length */
	unsigned char bytes[SEED_BYTES];
};

static int from_hex(const char *text, unsigned char *bytes)
{
	unsigned int i;

	if (strspn(text, "0123456789abcdef") != 2 * SEED_BYTES || text[2 * SEED_BYTES])
		return -1;
	for (i = 0; i < SEED_BYTES; i++)
		if (sscanf(text + 2 * i, "%2hhx", &bytes[i]) != 1)
			return -1;
	return 0;
}

static int reseed(struct seed *seed)
{
	int fd = open(RANDOM_DEVICE, O_RDWR | O_CLOEXEC), wrong;

	if (fd < 0)
		return -1;
	seed->head.entropy_count = 8 * SEED_BYTES;
	seed->head.buf_size = SEED_BYTES;
	/* Without the second, what was drawn from the old seed lasts for another minute. */
	wrong = ioctl(fd, RNDADDENTROPY, seed) || ioctl(fd, RNDRESEEDCRNG);
	close(fd);
	return wrong ? -1 : 0;
}

void wake(char **argv, struct json *j)
{
	struct seed seed = { .bytes = { 0 } };
	struct timespec wall;
	uint64_t ns;

	json_object(j, NULL);
	json_end(j);
	if (parse_u64(argv[1], &ns) || from_hex(argv[2], seed.bytes)) {
		json_fail(j, "expected: wake NANOSECONDS HEX");
		return;
	}
	wall.tv_sec = ns / NS_PER_SECOND;
	wall.tv_nsec = ns % NS_PER_SECOND;
	if (clock_settime(CLOCK_REALTIME, &wall))
		json_fail(j, "cannot set the clock: %s", strerror(errno));
	else if (reseed(&seed))
		json_fail(j, "cannot seed the kernel's random numbers: %s", strerror(errno));
}
