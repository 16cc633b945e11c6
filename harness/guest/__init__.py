# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest as seen from outside: its domain XML, its console, its shell."""
