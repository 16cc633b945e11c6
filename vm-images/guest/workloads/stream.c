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
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "serve.h"
#include "work.h"
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
	uint64_t keep;
	struct region kept;
} stream = { .keep = 8 * MIB, .rate = 1 * MIB, .connection = -1, .running = 1 };

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
	work_done(1);
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
	struct json *j;

	if (strcmp(line, "report"))
		return 0;
	j = answer_begin();
	json_number(j, "sent", stream.sent);
	json_number(j, "received", stream.received);
	json_number(j, "wrong", stream.wrong);
	json_number(j, "first_wrong", stream.first_wrong);
	json_number(j, "error", stream.error);
	json_number(j, "good", stream.good);
	json_number(j, "bad", stream.bad);
	json_number(j, "over", stream.over);
	answer_end(j);
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

static int events(struct pollfd *in, int *timeout)
{
	(void)timeout;
	in[0] = (struct pollfd){ stream.connection >= 0 ? stream.connection : stream.listener, POLLIN, 0 };
	in[1] = (struct pollfd){ stream.datagrams, POLLIN, 0 };
	in[2] = (struct pollfd){ stream.timer, POLLIN, 0 };
	return 3;
}

static void work(const struct pollfd *in, int ready)
{
	uint64_t expired;

	(void)ready;
	if (in[0].revents && stream.connection >= 0)
		take();
	else if (in[0].revents)
		accept_host();
	if (in[1].revents)
		send_back();
	if (in[2].revents && read(stream.timer, &expired, sizeof(expired)) > 0 &&
	    stream.connection >= 0 && stream.running)
		give();
}

static uint64_t load(const struct load *load, struct tally *t)
{
	stream.seed = load->seed;
	if (!stream.rate)
		die("that is no rate");
	demand_size(stream.keep);
	region_load(&stream.kept, stream.seed, stream.keep, 1, t);
	listen_to_host();
	return 0;
}

static const struct workload_option options[] = {
	{ "rate", .number = &stream.rate }, { "patience", .number = &stream.patience },
	{ "keep", .number = &stream.keep }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work,
};

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(stream, run);
