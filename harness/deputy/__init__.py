# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on a machine that is reached by ssh: our deputy there.

The harness packs this folder into one archive and starts it on the other machine
(:mod:`harness.hosts.remote_deputy`).  It speaks :mod:`harness.deputy.wire` on its
standard input and output, looks at the guest's memory where it is, and leaves
the machine as it found it when its connection ends, however it ends.

Nothing but Python's standard library, 3.9 or newer: no package has to be there.
Nothing of the harness outside of this folder is imported.
"""
