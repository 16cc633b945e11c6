/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words and small files, read. */
#ifndef FREEPAGE_WORDS_H
#define FREEPAGE_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* A decimal or 0x number that ends the string.  Returns 0 on success. */
int parse_u64(const char *text, uint64_t *value);

/* A field of /proc/meminfo in bytes; 0 where it is missing. */
uint64_t meminfo(const char *field);

/* What a file begins with, without the newline at its end.  Empty, and -1, if it cannot be read. */
int read_file(const char *path, char *text, size_t size);
/* One write.  0, or -1 with errno. */
int write_file(const char *path, const char *text);

#endif /* FREEPAGE_WORDS_H */
