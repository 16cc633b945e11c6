# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies in memory: RAM images, their digests and differences, and the device's record."""
