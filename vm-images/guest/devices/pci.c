// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Devices that are used by their registers and memory, without a driver.
 *
 *   vram fill ADDRESS SEED     write a pattern to the memory of a display
 *   vram check ADDRESS SEED    read it, then write and read another one
 *   hda begin|check ADDRESS    ask a sound controller's codec, and set and read its volume
 *   pvpanic check ADDRESS      say that a crash kernel was loaded, which the host is told
 *   config read ADDRESS        the device's configuration, as it answers
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "formula.h"

#define FIRST_PAGE	64	/* of the display's memory: behind what a text mode shows */
#define NR_PAGES	16

static void vram_fill(volatile uint64_t *words, uint64_t seed, uint64_t generation)
{
	uint64_t page, word;

	for (page = 0; page < NR_PAGES; page++) {
		uint64_t key = page_key(seed, page, generation);

		for (word = 0; word < PAGE_WORDS; word++)
			words[page * PAGE_WORDS + word] = page_word(key, word);
	}
}

static void vram_check(const volatile uint64_t *words, uint64_t seed, uint64_t generation)
{
	uint64_t page, word;

	for (page = 0; page < NR_PAGES; page++) {
		uint64_t key = page_key(seed, page, generation);

		for (word = 0; word < PAGE_WORDS; word++)
			if (words[page * PAGE_WORDS + word] != page_word(key, word))
				wrong("page %llu of the display's memory holds something else",
				      (unsigned long long)page);
	}
}

static void run_vram(int argc, char **argv)
{
	size_t first = FIRST_PAGE * PAGE_BYTES;
	volatile uint8_t *memory;
	volatile uint64_t *words;
	uint64_t seed;

	if (argc != 3)
		unable("expected: vram fill|check ADDRESS SEED");
	memory = map_bar(argv[1], 0, first + NR_PAGES * PAGE_BYTES);
	words = (volatile uint64_t *)(memory + first);
	seed = number_word(argv[2]);
	if (!strcmp(argv[0], "fill")) {
		vram_fill(words, seed, 1);
	} else {
		vram_check(words, seed, 1);
		vram_fill(words, seed, 2);
		vram_check(words, seed, 2);
		vram_fill(words, seed, 1);
	}
	vram_check(words, seed, 1);
	did("%d pages of its memory hold what was written", NR_PAGES);
}

DEVICE(vram, run_vram);

/* Registers of a High Definition Audio controller. */
#define HDA_GCTL	0x08
#define HDA_ICW		0x60	/* immediate command */
#define HDA_IRR		0x64	/* and its answer */
#define HDA_ICS		0x68
#define HDA_BUSY	1
#define HDA_VALID	2
/* Commands of its codec: a parameter of the root; of node 2, the left volume. */
#define HDA_VENDOR	0x000f0000U
#define HDA_SET_LEFT	0x0023a000U
#define HDA_GET_LEFT	0x002ba000U
/* QEMU keeps the bits of it that are in the number of its steps, 0x4a. */
#define HDA_VOLUME	0x0aU

static uint32_t hda_ask(volatile uint8_t *registers, uint32_t command)
{
	volatile uint32_t *icw = (volatile uint32_t *)(registers + HDA_ICW);
	volatile uint32_t *irr = (volatile uint32_t *)(registers + HDA_IRR);
	volatile uint16_t *ics = (volatile uint16_t *)(registers + HDA_ICS);

	*ics = HDA_VALID;
	*icw = command;
	*ics = HDA_BUSY;
	while (!(*ics & HDA_VALID))
		breathe();
	return *irr;
}

static void run_hda(int argc, char **argv)
{
	volatile uint8_t *registers;
	volatile uint32_t *control;
	uint32_t vendor, volume;

	if (argc != 2)
		unable("expected: hda begin|check ADDRESS");
	registers = map_bar(argv[1], 0, PAGE_BYTES);
	control = (volatile uint32_t *)(registers + HDA_GCTL);
	if (!strcmp(argv[0], "begin"))
		*control = 1;
	while (!(*control & 1))
		breathe();
	vendor = hda_ask(registers, HDA_VENDOR);
	if (!vendor || vendor == UINT32_MAX)
		wrong("its codec says that it is of vendor %#x", vendor);
	if (!strcmp(argv[0], "begin"))
		hda_ask(registers, HDA_SET_LEFT | HDA_VOLUME);
	volume = hda_ask(registers, HDA_GET_LEFT) & 0xff;
	if (volume != HDA_VOLUME)
		wrong("the left volume is %#x, and was set to %#x", volume, HDA_VOLUME);
	did("its codec %08x answers, and keeps its volume", vendor);
}

DEVICE(hda, run_hda);

static void run_pvpanic(int argc, char **argv)
{
	volatile uint8_t *events;

	if (argc != 2)
		unable("expected: pvpanic begin|check ADDRESS");
	events = map_bar(argv[1], 0, PAGE_BYTES);
	if (!(*events & 2))
		wrong("it says %#x of the events that it knows", *events);
	if (!strcmp(argv[0], "check"))
		*events = 2;
	did("it knows the events %#x", *events);
}

DEVICE(pvpanic, run_pvpanic);

static void run_config(int argc, char **argv)
{
	unsigned char bytes[64];
	char path[128];
	int fd;

	if (argc != 2)
		unable("expected: config read ADDRESS");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/0000:%s/config", argv[1]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, bytes, sizeof(bytes)) != sizeof(bytes))
		wrong("%s: %s", path, strerror(errno));
	close(fd);
	if (bytes[0] == 0xff && bytes[1] == 0xff)
		wrong("nothing answers at %s", argv[1]);
	did("its configuration can be read");
	/* Not the status register, which events change. */
	memset(bytes + 6, 0, 2);
	memset(bytes + 0x1e, 0, 2);
	value(bytes, sizeof(bytes));
}

DEVICE(config, run_config);
