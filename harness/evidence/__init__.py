# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run gathers from two paused QEMUs and from the guest, for the judge and for the report."""
