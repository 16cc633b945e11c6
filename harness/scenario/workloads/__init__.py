# SPDX-License-Identifier: GPL-2.0-or-later
"""The workloads of a scenario: what the guest does with its memory.

Each module of this package holds classes below :class:`~harness.scenario.workloads.base.Workload`, which
register themselves.  Its other half is one file in ``vm-images/guest/workloads``: see docs/how-to-add.md.
"""

from harness.scenario.registry import import_modules

import_modules(__name__, __path__)
