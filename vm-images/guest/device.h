/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a device is used, to find out whether it answers.  Each file in devices/ is linked
 * into the program `device`, and has one line for each device that it knows:
 *
 *   DEVICE(rng, run_rng);
 *
 * `run_rng` is called for `device rng ACTION [WORD..]`, with argv[0] the action.  It says
 * what it did (did, value) or what is wrong, and returns.  It may take as long as it
 * likes: who does not return within PATIENCE seconds of the guest's time is silent.
 */
#ifndef FREEPAGE_DEVICE_H
#define FREEPAGE_DEVICE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Seconds after which a device counts as one that does not answer. */
#define PATIENCE	30

struct device {
	const char *name;
	void (*run)(int argc, char **argv);
};

#define DEVICE(name, function) \
	static const struct device device_##name = { #name, function }; \
	static const struct device *const device_entry_##name \
		__attribute__((used, section("devices"))) = &device_##name

/* What it did, in words, for the report. */
void did(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A value for the host: bytes, as hexadecimal. */
void value(const void *bytes, size_t count);
/* It answers, but not as it must: the last thing that is said. */
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* This guest cannot use it at all: no fault of the device's. */
void unable(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* What a process that goes on in the background shares with who asks later. */
struct shared {
	_Atomic uint64_t count, done;	/* of its work; the last order that was carried out */
	_Atomic uint64_t order, word;	/* what it is to do, and with what */
	atomic_int failed;		/* an errno */
};

/* What a background process of that name shares; NULL: there is none. */
struct shared *shared_of(const char *name);
/* Start it: `run` goes on in a process of its own when the device's action has ended. */
void in_background(const char *name, void (*run)(struct shared *, void *), void *argument);
/* Have it carry out an order, and wait until it has. */
void give_order(struct shared *shared, uint64_t order, uint64_t word);
/* Wait until it has done some work more. */
void wait_for_work(struct shared *shared, uint64_t since);
/* A short pause between two looks at what somebody else does. */
void breathe(void);

/*
 * The folder in /sys of what hangs on the PCI device at `address` (00:10.0), below which
 * `kind` is a folder: block, input, tty.  Waits until it is there.  The first entry of that
 * folder that begins with `prefix` is written to `name`.
 */
void find_below(const char *address, const char *kind, const char *prefix, char *name, size_t size);
/* Map a BAR of a PCI device that no driver has: registers, so it is volatile. */
volatile void *map_bar(const char *address, int bar, size_t bytes);
uint64_t number_word(const char *word);

#endif /* FREEPAGE_DEVICE_H */
