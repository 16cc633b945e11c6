// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An IOMMU: what the kernel says of the NIC's way to memory.
 *
 *   iommu check MAC    the NIC must be in a group of the IOMMU's whose addresses are translated
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "nic.h"
#include "words.h"

static void run_iommu(int argc, char **argv)
{
	char path[PATH_MAX], group[PATH_MAX], type[64], name[IFNAMSIZ], *end;

	if (argc != 2 || nic_of_mac(argv[1], name))
		unable("expected: iommu check MAC, of a NIC that is there");
	snprintf(group, sizeof(group), "/sys/class/net/%s/device", name);
	/* Of virtio, the group is that of the PCI device above it. */
	if (!realpath(group, path))
		unable("there is no %s", group);
	for (;;) {
		snprintf(group, sizeof(group), "%.*s/iommu_group/type", PATH_MAX - 24, path);
		if (!access(group, R_OK))
			break;
		end = strrchr(path, '/');
		if (!end || end == path)
			wrong("the NIC is in no group of an IOMMU");
		*end = 0;
	}
	read_file(group, type, sizeof(type));
	type[strcspn(type, "\n")] = 0;
	if (strncmp(type, "DMA", 3))
		wrong("the NIC's addresses are not translated: its group is of type %s", type);
	did("the NIC is behind it (%s)", type);
}

DEVICE(iommu, run_iommu);
