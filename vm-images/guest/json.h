/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes one JSON value into memory that the caller has, and never past it.
 *
 *   struct json j;
 *   json_begin(&j, text, sizeof(text));
 *   json_object(&j, NULL);
 *   json_number(&j, "pages", 7);
 *   json_end(&j);
 *   json_text(&j);                  // {"pages":7}
 *
 * The key of what stands in a list, or alone, is NULL.  What does not fit, or cannot be
 * told, makes the whole a failure, whose text is the reason: a half object would be
 * taken for the truth.
 */
#ifndef FREEPAGE_JSON_H
#define FREEPAGE_JSON_H

#include <stddef.h>
#include <stdint.h>

struct json {
	char *text;
	size_t size, used;
	char ends[16];			/* what closes the objects and lists that are open */
	unsigned int depth;
	int comma;			/* something stands in front */
	int full, failed;
};

void json_begin(struct json *j, char *text, size_t size);
void json_object(struct json *j, const char *key);
void json_list(struct json *j, const char *key);
/* The innermost object or list that is open ends. */
void json_end(struct json *j);

void json_number(struct json *j, const char *key, uint64_t value);
void json_signed(struct json *j, const char *key, int64_t value);
/* As a string of 16 digits: a reader of JSON may have no 64 bits for a number. */
void json_hex(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, int value);
void json_null(struct json *j, const char *key);
/* In thousandths. */
void json_seconds(struct json *j, const char *key, double value);
/* What is not printable ASCII becomes a question mark. */
void json_string(struct json *j, const char *key, const char *value);

/* Instead of a value: why there is none.  The first reason stays. */
void json_fail(struct json *j, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What was written; or, if j->failed is set then, the reason why there is nothing. */
const char *json_text(struct json *j);

/* To drop what does not fit, where that is better than no answer at all. */
struct json_place {
	size_t used;
	unsigned int depth;
	int comma;
};

struct json_place json_here(const struct json *j);
/* If less than `room` bytes are left since then, forget what came since.  Returns whether it was. */
int json_back(struct json *j, struct json_place place, size_t room);

#endif /* FREEPAGE_JSON_H */
