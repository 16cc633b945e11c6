// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <glob.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "nic.h"
#include "words.h"

#ifndef NICS
#define NICS	"/sys/class/net"
#endif

int nic_of_mac(const char *mac, char name[IFNAMSIZ])
{
	char path[sizeof(NICS) + IFNAMSIZ + sizeof("/address")], has[32];
	int missing = -1;
	glob_t found;
	size_t i;

	if (glob(NICS "/*", 0, NULL, &found))
		return -1;
	for (i = 0; missing && i < found.gl_pathc; i++) {
		const char *entry = strrchr(found.gl_pathv[i], '/') + 1;

		if (strlen(entry) >= IFNAMSIZ)
			continue;
		snprintf(path, sizeof(path), NICS "/%s/address", entry);
		if (!read_file(path, has, sizeof(has)) && !strcasecmp(has, mac)) {
			strcpy(name, entry);
			missing = 0;
		}
	}
	globfree(&found);
	return missing;
}

static int is_there(const char *mac, char name[IFNAMSIZ])
{
	char path[sizeof(NICS) + IFNAMSIZ + 1];

	if (mac)
		return !nic_of_mac(mac, name);
	snprintf(path, sizeof(path), NICS "/%s", name);
	return !access(path, F_OK);
}

static long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int nic_await(const char *mac, char name[IFNAMSIZ], int seconds)
{
	struct sockaddr_nl links = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	long until = milliseconds() + seconds * 1000L, left;
	char news[8192];
	int fd, there;

	if (is_there(mac, name))
		return 0;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0 || bind(fd, (struct sockaddr *)&links, sizeof(links))) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	/* Looked at again before each wait: what came before the socket was there is not told. */
	while (!(there = is_there(mac, name)) && (left = until - milliseconds()) > 0) {
		struct pollfd in = { fd, POLLIN, 0 };

		if (poll(&in, 1, left) > 0)
			while (recv(fd, news, sizeof(news), MSG_DONTWAIT) > 0)
				;
	}
	close(fd);
	return there ? 0 : -1;
}
