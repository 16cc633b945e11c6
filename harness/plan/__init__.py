# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that comes before the hosts: what the user names, every binary there, the machines chosen."""
