// SPDX-License-Identifier: GPL-2.0-or-later
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

void json_begin(struct json *j, char *text, size_t size)
{
	*j = (struct json){ .text = text, .size = size };
	*text = '\0';
}

static void put(struct json *j, const char *bytes, size_t count)
{
	if (j->failed)
		return;
	/* Room for the end of the string stays. */
	if (count >= j->size - j->used) {
		j->full = 1;
		return;
	}
	memcpy(j->text + j->used, bytes, count);
	j->used += count;
	j->text[j->used] = '\0';
}

static void put_string(struct json *j, const char *s)
{
	put(j, "\"", 1);
	for (; *s; s++) {
		char c = *s >= ' ' && *s <= '~' ? *s : '?';

		if (c == '"' || c == '\\')
			put(j, "\\", 1);
		put(j, &c, 1);
	}
	put(j, "\"", 1);
}

/* What stands in front of any value. */
static void begin_value(struct json *j, const char *key)
{
	if (j->comma)
		put(j, ",", 1);
	j->comma = 1;
	if (!key)
		return;
	put_string(j, key);
	put(j, ":", 1);
}

static void __attribute__((format(printf, 3, 4)))
put_value(struct json *j, const char *key, const char *format, ...)
{
	char value[64];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	begin_value(j, key);
	put(j, value, n);
}

static void open_with(struct json *j, const char *key, char begin, char end)
{
	begin_value(j, key);
	put(j, &begin, 1);
	j->comma = 0;
	if (j->depth == sizeof(j->ends))
		j->full = 1;
	else
		j->ends[j->depth++] = end;
}

void json_object(struct json *j, const char *key)
{
	open_with(j, key, '{', '}');
}

void json_list(struct json *j, const char *key)
{
	open_with(j, key, '[', ']');
}

void json_end(struct json *j)
{
	if (j->depth)
		put(j, &j->ends[--j->depth], 1);
	j->comma = 1;
}

void json_number(struct json *j, const char *key, uint64_t value)
{
	put_value(j, key, "%" PRIu64, value);
}

void json_signed(struct json *j, const char *key, int64_t value)
{
	put_value(j, key, "%" PRId64, value);
}

void json_hex(struct json *j, const char *key, uint64_t value)
{
	put_value(j, key, "\"%016" PRIx64 "\"", value);
}

void json_bool(struct json *j, const char *key, int value)
{
	put_value(j, key, "%s", value ? "true" : "false");
}

void json_null(struct json *j, const char *key)
{
	put_value(j, key, "null");
}

void json_seconds(struct json *j, const char *key, double value)
{
	put_value(j, key, "%.3f", value);
}

void json_string(struct json *j, const char *key, const char *value)
{
	begin_value(j, key);
	put_string(j, value);
}

void json_fail(struct json *j, const char *format, ...)
{
	va_list args;

	if (j->failed)
		return;
	va_start(args, format);
	vsnprintf(j->text, j->size, format, args);
	va_end(args);
	j->failed = 1;
}

const char *json_text(struct json *j)
{
	if (j->full)
		json_fail(j, "the answer is longer than a line");
	return j->text;
}

struct json_place json_here(const struct json *j)
{
	return (struct json_place){ j->used, j->depth, j->comma };
}

int json_back(struct json *j, struct json_place place, size_t room)
{
	if (j->failed || (!j->full && j->size - j->used >= room))
		return 0;
	j->used = place.used;
	j->depth = place.depth;
	j->comma = place.comma;
	j->full = 0;
	j->text[j->used] = '\0';
	return 1;
}
