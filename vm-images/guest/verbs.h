/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the agent can do. */
#ifndef FREEPAGE_VERBS_H
#define FREEPAGE_VERBS_H

#include "channel.h"

extern const struct callee verbs_callee;

/* The driver that the guest was started with. */
void verbs_begin(const char *driver);
/* What the agent says first. */
void verbs_greet(void);
/* What to poll for while a call waits for the module, or -1; and what to do then. */
int verbs_held(void);
void verbs_held_changed(void);

/*
 * Whether the agent is to end once all its words have left; *how is for reboot(2) then, 0:
 * the machine is switched off.
 */
int verbs_going_down(int *how);

#endif /* FREEPAGE_VERBS_H */
