// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A connection that carries data both ways, and datagrams that are sent back, for a
 * guest that is about to be migrated.
 *
 *   load stream SEED BYTES [rate=BYTES] [patience=SECONDS] [keep=BYTES]
 *
 * The host connects to port 7700 and sends a stream of bytes whose words are the
 * formula (page 1, generation 0, as long as it takes); the guest sends another one
 * (page 2), `rate` bytes a second.  At the host's end of stream the guest ends its own.
 * A datagram to the same port has a number N and the formula of page N in generation 3;
 * what goes back is N and generation 4.  Every byte that comes is checked.
 *
 * `report` tells what came, and what of it was wrong.  `patience` is the host's.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "serve.h"
#include "watch.h"
#include "workload.h"

#ifndef PORT
#define PORT		7700
#endif
#define TICKS		100		/* a second */
#define CHUNK		4096
#define TO_GUEST	1, 0
#define TO_HOST		2, 0
#define DATAGRAM	3
#define DATAGRAM_BACK	4

static struct {
	uint64_t seed, rate, patience;
	int listener, connection, datagrams, timer, running, over;
	uint64_t sent, received, wrong, first_wrong, error;
	uint64_t good, bad;		/* datagrams */
	double last;
	volatile uint64_t *work;
	struct region kept;
} stream = { .rate = 1 * MIB, .connection = -1, .running = 1 };

static void stop(void);
static struct tally verify(void);
static int report(const char *line);
static struct server server = { .stop = stop, .verify = verify, .other = report };

/* The byte at a place of an endless page. */
static uint8_t byte_at(uint64_t key, uint64_t at)
{
	return mix64(key + (at / 8 + 1) * GOLDEN) >> (at % 8 * 8);
}

static void fill(uint8_t *bytes, size_t count, uint64_t key, uint64_t at)
{
	size_t i;

	for (i = 0; i < count; i++)
		bytes[i] = byte_at(key, at + i);
}

static void connection_over(uint64_t error)
{
	if (!stream.error)
		stream.error = error;
	stream.over = 1;
	close(stream.connection);
	stream.connection = -1;
}

static void take(void)
{
	uint64_t key = page_key(stream.seed, TO_GUEST);
	uint8_t bytes[CHUNK];
	ssize_t n = read(stream.connection, bytes, sizeof(bytes)), i;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		int error = n < 0 ? errno : 0;

		if (!n)
			shutdown(stream.connection, SHUT_WR);
		connection_over(error);
		return;
	}
	for (i = 0; i < n; i++)
		if (bytes[i] != byte_at(key, stream.received + i) && !stream.wrong++)
			stream.first_wrong = stream.received + i;
	stream.received += n;
	server.steps++;
	if (stream.work)
		(*stream.work)++;
}

static void give(void)
{
	uint64_t key = page_key(stream.seed, TO_HOST);
	int64_t due = work_due(stream.rate, &stream.last);
	uint8_t bytes[CHUNK];

	while (due > 0 && stream.connection >= 0) {
		size_t count = due < CHUNK ? due : CHUNK;
		ssize_t n;

		fill(bytes, count, key, stream.sent);
		n = send(stream.connection, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			connection_over(errno);
			return;
		}
		stream.sent += n;
		due -= n;
	}
}

static void send_back(void)
{
	uint64_t words[CHUNK / 8], number;
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	ssize_t n = recvfrom(stream.datagrams, words, sizeof(words), 0, (struct sockaddr *)&from, &length);
	size_t i;
	int wrong;

	if (n < 0)
		return;
	number = words[0];
	wrong = n < 16 || n % 8;
	for (i = 1; i < (size_t)n / 8; i++) {
		wrong |= words[i] != page_word(page_key(stream.seed, number, DATAGRAM), i);
		words[i] = page_word(page_key(stream.seed, number, DATAGRAM_BACK), i);
	}
	stream.bad += wrong;
	stream.good += !wrong;
	/* A full queue: it counts as lost, as any datagram may be. */
	if (sendto(stream.datagrams, words, n, MSG_DONTWAIT, (struct sockaddr *)&from, length) < 0)
		errno = 0;
}

static void stop(void)
{
	stream.running = 0;
}

static struct tally verify(void)
{
	return check_all(&stream.kept);
}

static int report(const char *line)
{
	if (strcmp(line, "report"))
		return 0;
	answer("{\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"first_wrong\":%" PRIu64
	       ",\"error\":%" PRIu64 ",\"good\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"over\":%d}\n",
	       stream.sent, stream.received, stream.wrong, stream.first_wrong, stream.error, stream.good,
	       stream.bad, stream.over);
	return 1;
}

static void listen_to_host(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	struct itimerspec each = {
		.it_interval = { 0, 1000000000 / TICKS },
		.it_value = { 0, 1000000000 / TICKS },
	};
	int on = 1;

	stream.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	stream.datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	stream.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (stream.listener < 0 || stream.datagrams < 0 || stream.timer < 0 ||
	    setsockopt(stream.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(stream.listener, (struct sockaddr *)&any, sizeof(any)) || listen(stream.listener, 1) ||
	    bind(stream.datagrams, (struct sockaddr *)&any, sizeof(any)) ||
	    timerfd_settime(stream.timer, 0, &each, NULL))
		die("port %d: %s", PORT, strerror(errno));
}

static void accept_host(void)
{
	int on = 1;

	stream.connection = accept4(stream.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	setsockopt(stream.connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	stream.last = now();
}

/* Once around.  Returns 0 at the end of input. */
static int turn(void)
{
	int connected = stream.connection >= 0;
	struct pollfd in[4] = {
		{ STDIN_FILENO, POLLIN, 0 },
		{ connected ? stream.connection : stream.listener, POLLIN, 0 },
		{ stream.datagrams, POLLIN, 0 },
		{ stream.timer, POLLIN, 0 },
	};
	uint64_t expired;

	if (poll(in, 4, -1) < 0 && errno != EINTR)
		die("poll: %s", strerror(errno));
	if (in[1].revents && connected)
		take();
	else if (in[1].revents)
		accept_host();
	if (in[2].revents)
		send_back();
	if (in[3].revents && read(stream.timer, &expired, sizeof(expired)) > 0 &&
	    stream.connection >= 0 && stream.running)
		give();
	return !in[0].revents || serve(&server);
}

static int run(int argc, char **argv)
{
	uint64_t bytes, keep = 8 * MIB, page;
	struct tally t = { 0 };
	double since = now();
	int i;

	if (argc < 5 || parse_u64(argv[3], &stream.seed) || parse_u64(argv[4], &bytes))
		die("expected: load stream SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if ((strncmp(argv[i], "rate=", 5) || parse_u64(argv[i] + 5, &stream.rate)) &&
		    (strncmp(argv[i], "patience=", 9) || parse_u64(argv[i] + 9, &stream.patience)) &&
		    (strncmp(argv[i], "keep=", 5) || parse_u64(argv[i] + 5, &keep)))
			die("unknown option: %s", argv[i]);
	if (!stream.rate || keep >> 46)
		die("that is no rate, or no size");
	region_map(&stream.kept, stream.seed, keep, 1);
	for (page = 0; page < stream.kept.pages; page++)
		write_owned(&stream.kept, page, &t);
	stream.work = work_counter();
	listen_to_host();
	answer_work("stream", &t, 0, &server, since);
	while (turn())
		;
	return 0;
}

WORKLOAD(stream, run);
