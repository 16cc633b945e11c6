// SPDX-License-Identifier: GPL-2.0-or-later
/* The writer of answers: commas, what is not ASCII, and what does not fit. */
#include "json.h"
#include "tests/check.h"

static void all_kinds(void)
{
	char text[256];
	struct json j;

	json_begin(&j, text, sizeof(text));
	json_object(&j, NULL);
	json_number(&j, "most", UINT64_MAX);
	json_signed(&j, "least", INT64_MIN);
	json_hex(&j, "hex", 0xabc);
	json_list(&j, "list");
	json_bool(&j, NULL, 2);
	json_null(&j, NULL);
	json_object(&j, NULL);
	json_end(&j);
	json_end(&j);
	json_seconds(&j, "s", 1.25);
	json_string(&j, "text", "a\"b\\c\n\xff");
	json_end(&j);
	CHECK_TEXT(json_text(&j), "{\"most\":18446744073709551615,\"least\":-9223372036854775808,"
				  "\"hex\":\"0000000000000abc\",\"list\":[true,null,{}],\"s\":1.250,"
				  "\"text\":\"a\\\"b\\\\c??\"}");
	CHECK(!j.failed);
}

/* Whatever the room, it is kept, and what is not whole is no answer. */
static void too_long(void)
{
	size_t size;

	for (size = 1; size < 40; size++) {
		char *text = malloc(size);
		struct json j;

		json_begin(&j, text, size);
		json_object(&j, NULL);
		json_string(&j, "key", "0123456789");
		json_end(&j);
		json_text(&j);
		CHECK(strlen(text) < size);
		CHECK(j.failed == (size <= strlen("{\"key\":\"0123456789\"}")));
		CHECK(j.failed || !strcmp(text, "{\"key\":\"0123456789\"}"));
		free(text);
	}
}

static void what_does_not_fit_is_dropped(void)
{
	char text[32];
	struct json_place before;
	struct json j;

	json_begin(&j, text, sizeof(text));
	json_list(&j, NULL);
	json_string(&j, NULL, "one");
	before = json_here(&j);
	json_string(&j, NULL, "0123456789012345678901234567890123456789");
	CHECK(json_back(&j, before, 4));
	before = json_here(&j);
	json_string(&j, NULL, "two");
	CHECK(!json_back(&j, before, 4));
	json_end(&j);
	CHECK_TEXT(json_text(&j), "[\"one\",\"two\"]");
}

static void the_first_reason_stays(void)
{
	char text[16];
	struct json j;

	json_begin(&j, text, sizeof(text));
	json_object(&j, NULL);
	json_fail(&j, "no %s: it is gone for good", "disk");
	json_fail(&j, "another");
	json_number(&j, "n", 1);
	json_end(&j);
	CHECK_TEXT(json_text(&j), "no disk: it is ");
	CHECK(j.failed);
}

static void too_deep(void)
{
	char text[256];
	struct json j;
	int i;

	json_begin(&j, text, sizeof(text));
	for (i = 0; i < 20; i++)
		json_list(&j, NULL);
	for (i = 0; i < 30; i++)
		json_end(&j);
	json_text(&j);
	CHECK(j.failed);
}

int main(void)
{
	all_kinds();
	too_long();
	what_does_not_fit_is_dropped();
	the_first_reason_stays();
	too_deep();
	return 0;
}
