# SPDX-License-Identifier: GPL-2.0-or-later
"""The actions of a script: each is one class, with its keys, its words, what it needs and what it does.

:mod:`~harness.scenario.actions.base` says how to write one,
:mod:`~harness.scenario.actions.stage` what it can reach.  Those that ship:
"""

# In the order of the documentation's table.
# ruff: isort: off
from harness.scenario.actions import migration, postcopy, monitor, command, guest_pages
from harness.scenario.actions import module, driver, memory, vcpus, virtio_mem, backend, restart

__all__ = [
    "backend",
    "command",
    "driver",
    "guest_pages",
    "memory",
    "migration",
    "module",
    "monitor",
    "postcopy",
    "restart",
    "vcpus",
    "virtio_mem",
]
