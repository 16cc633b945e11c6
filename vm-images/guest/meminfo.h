/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small readers that the agent and the workload share. */
#ifndef FREEPAGE_MEMINFO_H
#define FREEPAGE_MEMINFO_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A field of /proc/meminfo in bytes; 0 where it is missing. */
static inline uint64_t meminfo(const char *field)
{
	char text[4096], key[40], *at;
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	snprintf(key, sizeof(key), "%s:", field);
	at = strstr(text, key);
	return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

/* A decimal or 0x number that ends the string.  Returns 0 on success. */
static inline int parse_u64(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -1;
	*value = strtoull(text, &end, 0);
	return *end ? -1 : 0;
}

#endif /* FREEPAGE_MEMINFO_H */
