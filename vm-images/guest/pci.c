// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pci.h"

static struct {
	const char *kind, *prefix;
	char name[NAME_MAX + 1];
} pci_wanted;

static int pci_look(const char *path, const struct stat *state, int type, struct FTW *place)
{
	const char *parent = path + place->base - 1;
	size_t length = strlen(pci_wanted.kind);

	(void)state;
	if ((type != FTW_D && type != FTW_SL) || place->base < (int)length + 2)
		return 0;
	if (strncmp(parent - length, pci_wanted.kind, length) || parent[-(ssize_t)length - 1] != '/')
		return 0;
	if (strncmp(path + place->base, pci_wanted.prefix, strlen(pci_wanted.prefix)))
		return 0;
	snprintf(pci_wanted.name, sizeof(pci_wanted.name), "%s", path + place->base);
	return 1;
}

int pci_find_below(const char *address, const char *kind, const char *prefix, char *name, size_t size)
{
	char link[128], folder[PATH_MAX];

	snprintf(link, sizeof(link), PCI_DEVICES "%s", address);
	if (!realpath(link, folder))
		return -1;
	pci_wanted.kind = kind;
	pci_wanted.prefix = prefix;
	while (nftw(folder, pci_look, 16, FTW_PHYS) != 1)
		poll(NULL, 0, 10);
	snprintf(name, size, "%.60s", pci_wanted.name);
	return 0;
}
