// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a virtio device and its driver have agreed on.
 *
 *   virtio features NUMBER    the bits of the first device of that number, as eight bytes
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "words.h"

#define VIRTIO_DEVICES	"/sys/bus/virtio/devices"

static void run_virtio(int argc, char **argv)
{
	DIR *dir = opendir(VIRTIO_DEVICES);
	struct dirent *entry;
	uint64_t bits = 0;
	unsigned int i;

	if (argc != 2)
		unable("expected: virtio features NUMBER");
	while (dir && (entry = readdir(dir))) {
		char path[320], text[80];

		snprintf(path, sizeof(path), VIRTIO_DEVICES "/%s/device", entry->d_name);
		read_file(path, text, sizeof(text));
		if (!text[0] || number_word(text) != number_word(argv[1]))
			continue;
		snprintf(path, sizeof(path), VIRTIO_DEVICES "/%s/features", entry->d_name);
		read_file(path, text, sizeof(text));
		for (i = 0; i < 64 && text[i]; i++)
			bits |= (uint64_t)(text[i] == '1') << i;
		value(&bits, sizeof(bits));
		did("%s and its driver have agreed", entry->d_name);
		closedir(dir);
		return;
	}
	wrong("the guest has no virtio device %s", argv[1]);
}

DEVICE(virtio, run_virtio);
