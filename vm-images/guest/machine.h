/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a script does to the machine from within: drivers, memory blocks, a new kernel. */
#ifndef FREEPAGE_MACHINE_H
#define FREEPAGE_MACHINE_H

#include "json.h"

/* Note which device a driver has, before it lets go of it. */
void machine_note_device(const char *driver);
/* Bind or unbind it.  Takes as long as the driver needs: it may wait for the host. */
int machine_driver(const char *driver, const char *what);

/*
 * Blocks from the top, until `most` have changed to `state`.  A block with an
 * unmovable page in it says no, which is nothing unusual.  Returns how many.
 */
int machine_memory(const char *state, int most, int *changed);
/*
 * Begin to take one block offline, in a process of its own: the module stands in the
 * middle of it.  Nobody waits for that process but init.
 */
int machine_offline_begin(void);

/*
 * Processors from the top, until `most` have been taken online or offline.  The first
 * has no switch.  Returns how many, and counts those that are online then.
 */
int machine_cpus(int online, int most, int *count);

/* The kernel that the image brought along, with the command line of this one. */
int machine_load_kernel(void);

/* The values of KVM's own registers of one processor (msrs.c). */
void msrs_read(int cpu, struct json *j);

/* The values of any registers of one processor, by their numbers. */
void msrs_read_numbers(int cpu, int count, char *const numbers[], struct json *j);

#endif /* FREEPAGE_MACHINE_H */
