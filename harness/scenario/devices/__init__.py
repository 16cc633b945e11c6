# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices that a scenario can give its guest: each module here holds one, which registers itself.

:mod:`harness.scenario.devices.base` says what a device is made of.
"""

from __future__ import annotations

from harness.scenario.devices.base import (
    DEVICES,
    AnyDevice,
    ArrivedGuest,
    Device,
    DeviceContext,
    DeviceError,
    DeviceFacts,
    DeviceUser,
    HelperProgram,
    QemuFacts,
)
from harness.scenario.registry import import_modules

__all__ = [
    "DEVICES",
    "AnyDevice",
    "ArrivedGuest",
    "Device",
    "DeviceContext",
    "DeviceError",
    "DeviceFacts",
    "DeviceUser",
    "HelperProgram",
    "QemuFacts",
]

import_modules(__name__, __path__)
