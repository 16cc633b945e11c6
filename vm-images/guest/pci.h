/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What hangs on a PCI device, as /sys has it. */
#ifndef FREEPAGE_PCI_H
#define FREEPAGE_PCI_H

#include <stddef.h>

#define PCI_DEVICES	"/sys/bus/pci/devices/0000:"

/*
 * The first entry that begins with `prefix` in a folder `kind` (block, input, tty) below
 * the PCI device at `address` (00:10.0).  Waits until there is one: drivers find what
 * hangs on their bus in their own time.  -1: there is no such PCI device.
 */
int pci_find_below(const char *address, const char *kind, const char *prefix, char *name, size_t size);

#endif /* FREEPAGE_PCI_H */
