/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's NICs, by their addresses: their names depend on which driver came first. */
#ifndef FREEPAGE_NIC_H
#define FREEPAGE_NIC_H

#include <net/if.h>

/* The name of the one with that address (52:54:00:77:00:0a).  Returns 0, or -1: there is none. */
int nic_of_mac(const char *mac, char name[IFNAMSIZ]);
/*
 * The same, waiting so many seconds for one to come: its driver may wait for another device,
 * an IOMMU say.  Without an address: for the one that is called `name`.
 */
int nic_await(const char *mac, char name[IFNAMSIZ], int seconds);

#endif /* FREEPAGE_NIC_H */
