// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A NIC of the guest's, whose datagrams somebody sends back.  MAC says which.
 *
 *   nic echo MAC ADDRESS PORT QUEUES    from as many processors as there are queues: each
 *                                       queue has to carry datagrams both ways
 *   nic join MAC ADDRESS BITS           one that has none gets its address, and comes up
 *   nic carrier MAC                     whether its link is up, as a byte of 1 or 0
 *
 * A processor sends by the queue of its number.  What comes back of a flow comes by the
 * queue that has sent it, once the host has seen that; until then by any.  Datagrams may
 * be lost, so each is sent again and again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device.h"
#include "nic.h"
#include "words.h"

#define AGAIN_MS	100
#define MOST_QUEUES	64
#define MOST_COUNTERS	2048

static char interface[IFNAMSIZ];

/* Packets by queue, both ways. */
struct carried {
	uint64_t sent[MOST_QUEUES], received[MOST_QUEUES];
};

static int ask_driver(int fd, void *what)
{
	struct ifreq request = { .ifr_data = what };

	strcpy(request.ifr_name, interface);
	return ioctl(fd, SIOCETHTOOL, &request);
}

/* What the driver counts, by the names that virtio_net has for it. */
static void count(int fd, struct carried *carried)
{
	struct { struct ethtool_sset_info info; uint32_t length; } set = {
		.info = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1 << ETH_SS_STATS },
	};
	struct ethtool_gstrings *names;
	struct ethtool_stats *stats;
	uint32_t i;

	if (ask_driver(fd, &set) || set.length > MOST_COUNTERS)
		unable("the driver of %s counts nothing: %s", interface, strerror(errno));
	names = calloc(1, sizeof(*names) + set.length * ETH_GSTRING_LEN);
	stats = calloc(1, sizeof(*stats) + set.length * sizeof(uint64_t));
	if (!names || !stats)
		unable("no memory");
	*names = (struct ethtool_gstrings){ ETHTOOL_GSTRINGS, ETH_SS_STATS, set.length };
	*stats = (struct ethtool_stats){ ETHTOOL_GSTATS, set.length };
	if (ask_driver(fd, names) || ask_driver(fd, stats))
		unable("the driver of %s: %s", interface, strerror(errno));
	memset(carried, 0, sizeof(*carried));
	for (i = 0; i < set.length; i++) {
		const char *name = (const char *)names->data + i * ETH_GSTRING_LEN;
		unsigned int queue;
		char end[12] = "";

		if (sscanf(name, "rx_queue_%u_%11s", &queue, end) == 2 && !strcmp(end, "packets") &&
		    queue < MOST_QUEUES)
			carried->received[queue] = stats->data[i];
		else if (sscanf(name, "tx_queue_%u_%11s", &queue, end) == 2 && !strcmp(end, "packets") &&
			 queue < MOST_QUEUES)
			carried->sent[queue] = stats->data[i];
	}
	free(names);
	free(stats);
}

/* Send, again and again, until something has come back. */
static void exchange(int fd, uint64_t number)
{
	struct pollfd in = { fd, POLLIN, 0 };
	uint64_t back;

	for (;;) {
		if (send(fd, &number, sizeof(number), 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
			wrong("sending: %s", strerror(errno));
		if (poll(&in, 1, AGAIN_MS) <= 0)
			continue;
		if (recv(fd, &back, sizeof(back), MSG_DONTWAIT) == sizeof(back) && back == number)
			return;
	}
}

static void stay_on(unsigned int processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		unable("there is no processor %u", processor);
}

static void join(struct in_addr address, unsigned int bits)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || !bits || bits > 32)
		unable("no network: %s", strerror(errno));
	strcpy(request.ifr_name, interface);
	in->sin_family = AF_INET;
	in->sin_addr = address;
	if (ioctl(fd, SIOCSIFADDR, &request))
		wrong("address of %s: %s", interface, strerror(errno));
	in->sin_addr.s_addr = htonl(~0U << (32 - bits));
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		wrong("netmask of %s: %s", interface, strerror(errno));
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		wrong("%s does not come up: %s", interface, strerror(errno));
	close(fd);
	did("it has come up");
}

static void carrier(void)
{
	char path[64], text[8];
	unsigned char up;

	snprintf(path, sizeof(path), "/sys/class/net/%s/carrier", interface);
	if (read_file(path, text, sizeof(text)))
		unable("%s: %s", path, strerror(errno));
	up = text[0] == '1';
	value(&up, sizeof(up));
}

static void run_nic(int argc, char **argv)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	struct carried before, after;
	unsigned int queues, queue;
	uint64_t number = 1;

	if (argc < 2)
		unable("expected: nic echo|join|carrier MAC ...");
	/* It is there once the guest has seen what was plugged in. */
	if (nic_await(argv[1], interface, PATIENCE))
		wrong("the guest has no NIC %s", argv[1]);
	if (argc == 2 && !strcmp(argv[0], "carrier")) {
		carrier();
		return;
	}
	if (argc == 4 && !strcmp(argv[0], "join") && inet_aton(argv[2], &there.sin_addr)) {
		join(there.sin_addr, number_word(argv[3]));
		return;
	}
	if (argc != 5 || strcmp(argv[0], "echo") || !inet_aton(argv[2], &there.sin_addr))
		unable("expected: nic echo MAC ADDRESS PORT QUEUES, or nic join MAC ADDRESS BITS");
	there.sin_port = htons(number_word(argv[3]));
	queues = number_word(argv[4]);
	if (!queues || queues > MOST_QUEUES)
		unable("that is no number of queues");
	for (queue = 0; queue < queues; queue++) {
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof(there)))
			unable("no network: %s", strerror(errno));
		if (queues > 1)
			stay_on(queue);
		exchange(fd, number++);
		if (queues > 1) {
			count(fd, &before);
			do {
				exchange(fd, number++);
				count(fd, &after);
			} while (after.sent[queue] == before.sent[queue] ||
				 after.received[queue] == before.received[queue]);
		}
		did("queue %u carries datagrams", queue);
		close(fd);
	}
}

DEVICE(nic, run_nic);
