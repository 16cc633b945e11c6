// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "channel.h"

#define KEPT_ANSWERS	8
#define NAK		0x15

struct answer {
	uint64_t n;
	char text[LINE_BYTES];
};

static struct {
	int tty;
	const struct callee *callee;
	char in[LINE_BYTES], out[16 * LINE_BYTES];
	size_t in_used, out_used;
	int overlong;
	struct answer kept[KEPT_ANSWERS];
	unsigned int next_kept;
} channel = { .tty = -1 };

void channel_flush(void)
{
	ssize_t n = write(channel.tty, channel.out, channel.out_used);

	if (n > 0) {
		channel.out_used -= n;
		memmove(channel.out, channel.out + n, channel.out_used);
	}
}

void send_line(const char *text)
{
	size_t length = strnlen(text, LINE_BYTES - 1);

	if (channel.out_used + length + 1 > sizeof(channel.out))
		return;
	memcpy(channel.out + channel.out_used, text, length);
	channel.out_used += length;
	channel.out[channel.out_used++] = '\n';
	channel_flush();
}

void reply(uint64_t n, const char *format, ...)
{
	struct answer *a = &channel.kept[channel.next_kept++ % KEPT_ANSWERS];
	int used = snprintf(a->text, sizeof(a->text), "%" PRIu64 " ", n);
	va_list args;

	a->n = n;
	va_start(args, format);
	used += vsnprintf(a->text + used, sizeof(a->text) - used, format, args);
	va_end(args);
	if (used >= LINE_BYTES)
		snprintf(a->text, sizeof(a->text),
			 "%" PRIu64 " error the answer is longer than a line", n);
	send_line(a->text);
}

int channel_waits(void)
{
	return channel.out_used != 0;
}

void channel_drain(void)
{
	tcdrain(channel.tty);
}

void channel_close(void)
{
	close(channel.tty);
}

static void line_received(char *line)
{
	char *argv[MOST_WORDS + 2], *rest = NULL, *end;
	unsigned int i;
	int argc = 0;
	uint64_t n;

	if (!*line)
		return;
	n = strtoull(line, &end, 10);
	if (*line < '0' || *line > '9' || !n || *end != ' ') {
		send_line("! a line without a number and a verb");
		return;
	}
	if (channel.callee->under_way(n))
		return;
	for (i = 0; i < KEPT_ANSWERS; i++)
		if (channel.kept[i].n == n) {
			send_line(channel.kept[i].text);
			return;
		}
	for (line = strtok_r(end, " ", &rest); line && argc <= MOST_WORDS;
	     line = strtok_r(NULL, " ", &rest))
		argv[argc++] = line;
	argv[argc] = NULL;
	if (line || !argc)
		reply(n, "error no verb, or too many arguments");
	else
		channel.callee->called(&(struct call){ n, argc, argv });
}

void channel_read(void)
{
	unsigned char bytes[512];
	ssize_t got = read(channel.tty, bytes, sizeof(bytes)), i;

	for (i = 0; i < got; i++) {
		if (bytes[i] == NAK) {
			channel.in_used = channel.overlong = 0;
		} else if (bytes[i] == '\n' || bytes[i] == '\r') {
			channel.in[channel.in_used] = '\0';
			if (channel.overlong)
				send_line("! a line that is too long");
			else
				line_received(channel.in);
			channel.in_used = channel.overlong = 0;
		} else if (channel.in_used == sizeof(channel.in) - 1 || bytes[i] < ' ' ||
			   bytes[i] > '~') {
			channel.overlong = 1;
		} else {
			channel.in[channel.in_used++] = bytes[i];
		}
	}
}

int channel_open(const char *path, const struct callee *callee)
{
	struct termios raw;

	channel.callee = callee;
	channel.tty = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (channel.tty < 0 || tcgetattr(channel.tty, &raw)) {
		fprintf(stderr, "agent: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&raw, B115200);
	tcsetattr(channel.tty, TCSANOW, &raw);
	return channel.tty;
}
