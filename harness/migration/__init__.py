# SPDX-License-Identifier: GPL-2.0-or-later
"""Start, follow, hold and count a migration: libvirt moves the guest, QMP says what libvirt does not."""

from __future__ import annotations
