/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a unit test of the guest's programs says: nothing, or the first thing that is wrong. */
#ifndef FREEPAGE_CHECK_H
#define FREEPAGE_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1); \
		} \
	} while (0)

#define CHECK_TEXT(text, wanted) do { \
		const char *is = (text); \
		if (strcmp(is, wanted)) { \
			fprintf(stderr, "%s:%d: %s, and not %s\n", __FILE__, __LINE__, is, wanted); \
			exit(1); \
		} \
	} while (0)

#endif /* FREEPAGE_CHECK_H */
