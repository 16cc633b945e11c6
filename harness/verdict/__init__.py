# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge and its rules.  Pure: no input, no output, no clock."""
