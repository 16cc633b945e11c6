// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A workload of one's own for freepage-testbed: every word of 16 MiB counts up, all in step.
 *
 *   gcc -O2 -static -o counter counter.c
 *   freepage run ./user.yaml --set workload.program=./counter
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (16u << 20 >> 3)

int main(int argc, char **argv)
{
	uint64_t *words = malloc(WORDS * sizeof(*words)), value = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	int writing = 0;
	char line[64];
	size_t i;

	if (!words)
		return 1;
	for (i = 0; i < WORDS; i++)
		words[i] = value + i;
	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	puts("ready");
	for (;;) {
		struct pollfd in = { 0, POLLIN, 0 };

		if (poll(&in, 1, writing ? 0 : -1) > 0) {
			if (!fgets(line, sizeof(line), stdin))
				return 0;
			writing = !strcmp(line, "write\n");
			if (writing)
				continue;
			for (i = 0; i < WORDS && words[i] == value + i; i++)
				;
			if (i < WORDS)
				printf("wrong word %zu is %llu and not %llu\n", i, (unsigned long long)words[i],
				       (unsigned long long)(value + i));
			else
				puts("right");
			continue;
		}
		value++;
		for (i = 0; i < WORDS; i++)
			words[i]++;
		puts("work 1");
	}
}
