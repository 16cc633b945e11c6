# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixture ``lab``: the body of the test runs in a lab, and boots a guest there itself.

    def test_by_hand(lab):
        guest = lab.boot("idle", memory="256MiB")
        assert guest.shell("cat /proc/meminfo")
        with guest.migration() as migration:
            migration.run()
            assert migration.judge().verdict == "pass"
            migration.resume()

Fixtures are set up and torn down outside of it, where the network is; what the
body starts ends with the body.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from harness.testing.options import RunOptions, merged, yaml_of

if TYPE_CHECKING:
    from harness.events import EventStream
    from harness.plan.plan import RunPlan, Tools
    from harness.testing.guest import LabGuest

_T = TypeVar("_T")

#: Keys of a scenario, by options of a run.
_KEYS: Final = {
    "arm": "arm",
    "accel": "accelerator",
    "machine": "guest.machine",
    "memory": "guest.memory",
    "seed": "seed",
    "strict": "strict",
    "trace": "trace",
}


class LabFixture:
    """See the module."""

    def __init__(self, folder: Path, defaults: RunOptions) -> None:
        self.folder = folder
        self.defaults = defaults
        self._stack = contextlib.ExitStack()
        self._booted = 0

    def boot(self, scenario: str | Path = "idle", **options: Unpack[RunOptions]) -> LabGuest:
        """Boot a scenario's guest on the source; returns when it has said that it is ready.

        Its workload is loaded by :meth:`LabGuest.load`; nothing of its script is done.  What
        is needed must have been built: the fixture has built what the test's options name.
        Raises :class:`harness.errors.GuestLost` and its like, which make the test an error.
        """
        from harness.events import EventStream, JsonLinesFile
        from harness.report.folder import RunFolder
        from harness.run.boot import ready_guest
        from harness.testing.guest import LabGuest

        assert not self._booted, "a lab has one guest: another one is another test"
        self._booted += 1
        events = EventStream()
        plan = self._plan(str(scenario), merged(self.defaults, options, ()), events)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(scenario).stem)
        folder = RunFolder.create(self.folder / f"lab-{name}", name, plan.resolved.scenario.arm)
        events.subscribe(JsonLinesFile(folder.file("events.jsonl")), replay=True)
        folder.write_text("scenario.yaml", plan.resolved.scenario.to_yaml())
        # The last thing to be done: only a body that has come to its end has a whole folder.
        self._stack.callback(folder.finish)
        ready = self._stack.enter_context(ready_guest(plan, folder, events))
        return self._stack.enter_context(LabGuest(ready, folder, events))

    def _plan(self, name: str, options: RunOptions, events: EventStream) -> RunPlan:
        from harness.hosts.this_machine import command_start
        from harness.plan.kinds import kind_of
        from harness.plan.prepare import load_with_tools, prepare

        scenario, tools = load_with_tools(name, _changes(options), _tools(options))
        machines = self._stack.enter_context(kind_of(scenario).reach(scenario, events))
        return prepare(scenario, tools, events, command_start(), machines)

    def enter(self, context: contextlib.AbstractContextManager[_T]) -> _T:
        """Enter a context for as long as the body runs."""
        return self._stack.enter_context(context)

    def close(self) -> None:
        """End the guest and its hosts."""
        self._stack.close()


def build_lab(defaults: RunOptions) -> list[Path]:
    """Have everything built that a guest with these options needs; paths that must stay visible in a lab."""
    from harness.toolchain import Toolchain
    from harness.toolchain.qemu_names import canonical

    toolchain = Toolchain()
    kernel = toolchain.kernel(str(defaults.get("kernel", "default")))
    found = [*toolchain.cache.layers, kernel.vmlinuz, toolchain.image(kernel).initrd]
    for name in ("source_qemu", "destination_qemu"):
        named = defaults.get(name) or defaults.get("qemu")
        qemu = toolchain.named_qemu(canonical(str(named))) if named else toolchain.qemu()
        found.append(qemu.folder or qemu.path)
    return found


def _changes(options: RunOptions) -> list[str]:
    given: Mapping[str, object] = {**options}
    keys = {key: given[name] for name, key in _KEYS.items() if given.get(name) is not None}
    keys |= options.get("set") or {}
    return [f"{key}={yaml_of(value)}" for key, value in keys.items()]


def _tools(options: RunOptions) -> Tools:
    from harness.plan.plan import Tools
    from harness.toolchain.qemu_names import canonical

    def qemu(name: str) -> str | None:
        value = options.get(name) or options.get("qemu")
        return None if value is None else canonical(str(value))

    kernel, fault = options.get("kernel"), options.get("fault")
    return Tools(
        source_qemu=qemu("source_qemu"),
        destination_qemu=qemu("destination_qemu"),
        kernel=None if kernel is None else str(kernel),
        fault=fault,
    )
