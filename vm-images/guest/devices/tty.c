// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A serial port or console, whose other end sends back what it gets, in capitals.
 *
 *   tty PCI-ADDRESS PREFIX NONCE    the port PREFIX* of a PCI device: ttyS, hvc
 *   tty - NAME NONCE                the port of that name
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "device.h"

static void run_tty(int argc, char **argv)
{
	char name[64], path[80], line[80], back[80] = "";
	struct termios raw;
	size_t got = 0, length, i;
	int fd;

	if (argc != 3)
		unable("expected: tty ADDRESS PREFIX NONCE");
	if (strcmp(argv[0], "-"))
		find_below(argv[0], "tty", argv[1], name, sizeof(name));
	else
		snprintf(name, sizeof(name), "%s", argv[1]);
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || tcgetattr(fd, &raw))
		unable("%s: %s", path, strerror(errno));
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&raw, B115200);
	tcsetattr(fd, TCSANOW, &raw);
	tcflush(fd, TCIOFLUSH);
	length = snprintf(line, sizeof(line), "%s\n", argv[2]);
	if (write(fd, line, length) != (ssize_t)length)
		wrong("writing to %s: %s", path, strerror(errno));
	while (got < length) {
		ssize_t n = read(fd, back + got, length - got);

		if (n < 0)
			wrong("reading %s: %s", path, strerror(errno));
		got += n;
	}
	for (i = 0; i < length; i++)
		if (back[i] != toupper((unsigned char)line[i]))
			wrong("byte %zu of what came back through %s is %#x", i, path, back[i] & 0xff);
	did("%zu bytes came back through %s", length, path);
}

DEVICE(tty, run_tty);
