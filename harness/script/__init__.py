# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario's script, carried out while a migration runs."""
