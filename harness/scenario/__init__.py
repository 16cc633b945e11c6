# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario language: what to migrate, how, what happens meanwhile, and what must come out."""
