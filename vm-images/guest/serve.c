// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "serve.h"

void answer_work(const char *kind, const struct tally *t, uint64_t freed, const struct server *s,
		 double since)
{
	struct json *j = answer_tally(kind, t, since);

	json_number(j, "freed", freed);
	json_number(j, "steps", s->steps);
	json_number(j, "live_checked", s->checked);
	json_number(j, "live_bad", s->bad);
	answer_end(j);
}

int serve(const struct server *s)
{
	char line[256];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);
	struct tally t = { 0 };
	double since = now();

	if (n <= 0)
		return 0;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (!strcmp(line, "stop")) {
		s->stop();
		answer_work("stop", &t, 0, s, since);
	} else if (!strcmp(line, "verify")) {
		t = s->verify();
		answer_work("verify", &t, 0, s, since);
	} else if (!s->other || !s->other(line)) {
		answer("error unknown command");
	}
	return 1;
}

int64_t work_due(uint64_t rate, double *last)
{
	double longest = rate < 40 ? 2.0 / rate : 0.05;
	double t = now(), elapsed = t - *last;
	int64_t due = rate ? (int64_t)((elapsed < longest ? elapsed : longest) * rate) : 0;

	if (due > 0)
		*last = t;
	return due;
}

void demand_size(uint64_t bytes)
{
	if (bytes >> 46)
		die("%" PRIu64 " bytes: that is no size", bytes);
}

static void read_option(const struct workload_option *option, const char *word)
{
	for (; option && option->name; option++) {
		size_t length = strlen(option->name);

		if (strncmp(word, option->name, length) || word[length] != '=')
			continue;
		if (option->word) {
			*option->word = word + length + 1;
			return;
		}
		if (!parse_u64(word + length + 1, option->number))
			return;
	}
	die("unknown option: %s", word);
}

int workload_main(int argc, char **argv, const struct workload_ops *ops)
{
	struct load load = { .kind = argv[2] };
	struct tally t = { 0 };
	double since = now();
	uint64_t freed;
	int i;

	if (argc < 5 || parse_u64(argv[3], &load.seed) || parse_u64(argv[4], &load.bytes))
		die("expected: load KIND SEED BYTES [key=value..]");
	for (i = 5; i < argc; i++)
		if (!strncmp(argv[i], "advice=", 7))
			advise(argv[i] + 7);
		else
			read_option(ops->options, argv[i]);
	demand_size(load.bytes);
	freed = ops->load(&load, &t);
	answer_work(load.kind, &t, freed, ops->server, since);
	for (;;) {
		struct pollfd in[1 + MOST_EVENTS] = { { STDIN_FILENO, POLLIN, 0 } };
		int timeout = -1, count = ops->events ? ops->events(in + 1, &timeout) : 0, ready;

		ready = poll(in, 1 + count, timeout);
		if (ready < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (ready >= 0 && ops->work)
			ops->work(in + 1, ready);
		if (ready > 0 && in[0].revents && !serve(ops->server))
			return 0;
	}
}
