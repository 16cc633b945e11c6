// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An init that fragments memory, says on /dev/ttyS1 which frames its kernel
 * calls free, and then does nothing, for ever.
 *
 * The line "free HEX" has a bit a frame, KPF_BUDDY of /proc/kpageflags, the
 * lowest bit first; then comes the line "quiet".
 */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define KPF_BUDDY 10
#define MOST_FRAMES (1UL << 24)
#define FRAGMENTED (160UL << 20)
#define PAGE 4096UL

/* All memory that is needed later is had before anything is looked at. */
static unsigned char bits[MOST_FRAMES / 8];
static uint64_t flags[8192];
static char line[1 << 16];

static void load(const char *module)
{
	int fd = open(module, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		syscall(SYS_finit_module, fd, "", 0);
		close(fd);
	}
}

/* Two of three pages are given back, in an order that leaves holes of many sizes. */
static void fragment(void)
{
	unsigned char *memory = mmap(NULL, FRAGMENTED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t random = 1;

	if (memory == MAP_FAILED)
		return;
	madvise(memory, FRAGMENTED, MADV_NOHUGEPAGE);
	memset(memory, 1, FRAGMENTED);
	for (unsigned long page = 0; page < FRAGMENTED / PAGE; page++) {
		random = random * 1664525 + 1013904223;
		if (random >> 24 < 170)
			madvise(memory + page * PAGE, PAGE, MADV_DONTNEED);
	}
}

static void put(int out, const char *text, size_t length)
{
	while (length) {
		ssize_t done = write(out, text, length);

		if (done <= 0)
			return;
		text += done;
		length -= done;
	}
}

static void report(int out)
{
	static const char digits[] = "0123456789abcdef";
	int in = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long frames = 0;
	size_t used = 0;
	ssize_t got;

	memset(bits, 0, sizeof(bits));
	while (in >= 0 && frames < MOST_FRAMES && (got = read(in, flags, sizeof(flags))) > 0)
		for (ssize_t i = 0; i < got / 8 && frames < MOST_FRAMES; i++, frames++)
			if (flags[i] >> KPF_BUDDY & 1)
				bits[frames / 8] |= 1 << frames % 8;
	put(out, "free ", 5);
	for (unsigned long i = 0; i < (frames + 7) / 8; i++) {
		line[used++] = digits[bits[i] >> 4];
		line[used++] = digits[bits[i] & 15];
		if (used == sizeof(line)) {
			put(out, line, used);
			used = 0;
		}
	}
	put(out, line, used);
	put(out, "\nquiet\n", 7);
}

int main(void)
{
	struct termios mode;
	int out;

	mkdir("/proc", 0555);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	load("/qemu_fw_cfg.ko");
	memset(bits, 1, sizeof(bits));
	memset(line, 1, sizeof(line));
	memset(flags, 1, sizeof(flags));
	fragment();
	out = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	if (out >= 0 && !tcgetattr(out, &mode)) {
		cfmakeraw(&mode);
		tcsetattr(out, TCSANOW, &mode);
	}
	report(out);
	for (;;)
		pause();
}
