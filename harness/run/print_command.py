# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run --print-command``: the domains for libvirt, and QEMU's command lines; no guest.

The hosts' own libvirt daemons say what they would start (virConnectDomainXMLToNative), so the command
line is libvirt's and not an imitation.  Two things are not in it, since libvirt makes them when it starts a
guest: descriptors that QEMU inherits, and what a migration adds on the destination (``-incoming defer``).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.guest.domain import destination_xml, domain_xml
from harness.guest.xml_edits import EditError
from harness.hosts.interface import Host, Pair
from harness.hosts.netns import can_open_tun
from harness.hosts.signals import polite_signals
from harness.hosts.this_machine import command_start
from harness.plan.kinds import kind_of
from harness.plan.plan import RunPlan, Tools
from harness.plan.prepare import load_with_tools, prepare
from harness.run.channels import QemuFiles
from harness.run.definition import Definition
from harness.scenario.load import Override
from harness.terminal import TerminalProgress

#: The format of virConnectDomainXMLToNative (src/qemu/qemu_conf.h in libvirt's source).
_FORMAT: Final = "qemu-argv"


@dataclass(frozen=True, slots=True)
class StartOfGuest:
    """What a host would be told: the domain, and what its libvirt would start."""

    domain: str
    environment: Mapping[str, str]
    command: Sequence[str]

    @classmethod
    def of(cls, domain: str, native: str) -> StartOfGuest:
        """From libvirt's words: assignments, then the program, quoted for a shell."""
        # It continues lines with a backslash, which is a character of the next word to shlex.
        words = [word.lstrip("\n") for word in shlex.split(native)]
        assigned = next(
            (at for at, word in enumerate(words) if "=" not in word or word.startswith("/")), len(words)
        )
        pairs = (word.partition("=") for word in words[:assigned])
        return cls(domain, {name: value for name, _, value in pairs}, words[assigned:])


def print_commands(name: str, changes: Sequence[str | Override], tools: Tools, *, as_json: bool) -> int:
    """Print the domain and the command line of both hosts; returns the exit status."""
    began = command_start()
    scenario, tools = load_with_tools(name, changes, tools)
    kind = kind_of(scenario)
    if scenario.remote is None and not can_open_tun():
        # qemuConnectDomainXMLToNative() makes every NIC one of the type ethernet, and opens its tap.
        raise InputError(
            "--print-command: libvirt opens a tap to tell a command line, whatever the NIC, and /dev/net/tun "
            "does not open for this user",
            hint="a run has a file source.command with it",
        )
    events = EventStream()
    with contextlib.ExitStack() as stack:
        with TerminalProgress(events):
            machines = stack.enter_context(kind.reach(scenario, events))
            plan = prepare(scenario, tools, events, began, machines)

        def work() -> int:
            with polite_signals(), TerminalProgress(events):
                starts = _ask(plan, events)
            print(as_document(starts) if as_json else as_text(starts), flush=True)  # noqa: T201 - the output
            return 0

        return machines.run(work, plan.files)


def _ask(plan: RunPlan, events: EventStream) -> dict[str, StartOfGuest]:
    with tempfile.TemporaryDirectory(prefix="freepage-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with events.step(plan.machines.step):
            hosts = plan.machines.hosts(plan.resolved.scenario, plan.binaries, folder / "hosts", events)
            pair = stack.enter_context(hosts)
        with events.step("ask libvirt"):
            return starts_of(plan, pair, folder)


def starts_of(plan: RunPlan, pair: Pair, folder: Path) -> dict[str, StartOfGuest]:
    """What both hosts would be told; ``folder``: stands for the run folder."""
    definition = Definition(plan, pair, pair.runtime_dir / "initrd", folder / "disk.raw")
    # Libvirt looks at them before it says anything: they need not hold anything.
    definition.initrd.touch()
    if plan.disk is not None:
        definition.own_disk.touch()
    pair.bring({"initrd": definition.initrd, "vmlinuz": plan.kernel.vmlinuz})
    files = [
        QemuFiles(
            host.arrive(f"qemu-{number}"), folder / f"{host.name}.record", folder / f"{host.name}.trace"
        )
        for number, host in enumerate((pair.source, pair.destination), 1)
    ]
    try:
        xml = domain_xml(definition.spec(pair.source, files[0]))
    except EditError as error:
        scenario = plan.resolved.scenario
        raise scenario.wrong(f"guest.xml.{error.number}", str(error)) from error
    there = destination_xml(xml, definition.spec(pair.destination, files[1]))
    return {
        host.name: _native(host, domain) for host, domain in ((pair.source, xml), (pair.destination, there))
    }


def _native(host: Host, domain: str) -> StartOfGuest:
    import libvirt

    try:
        native = host.connect().domainXMLToNative(_FORMAT, domain, 0)
    except libvirt.libvirtError as error:
        raise MachineryError(
            f"the {host.name}'s libvirt does not say what it would start: {error.get_error_message()}"
        ) from error
    return StartOfGuest.of(domain, native)


def as_document(starts: Mapping[str, StartOfGuest]) -> str:
    """As JSON: each side's domain, environment and command line."""
    found = {
        name: {
            "domain": start.domain,
            "environment": dict(start.environment),
            "command": list(start.command),
        }
        for name, start in starts.items()
    }
    return json.dumps(found, indent=2, ensure_ascii=False)


def as_text(starts: Mapping[str, StartOfGuest]) -> str:
    """For people, and for a shell: the domains are comments."""
    parts = []
    for name, start in starts.items():
        parts.append(f"# The {name}'s domain:")
        parts += [f"#   {line}" for line in start.domain.splitlines()]
        parts.append(f"# The {name}'s QEMU, as its libvirt would start it:")
        parts.append(_by_lines(start))
        parts.append("")
    parts.append("# To receive a guest, libvirt starts the destination's QEMU with -incoming defer as well.")
    parts.append("# What is below /run/freepage is a lab's: it is there while a run lasts.")
    return "\n".join(parts)


def _by_lines(start: StartOfGuest) -> str:
    """One option a line."""
    environment = [shlex.quote(f"{name}={value}") for name, value in start.environment.items()]
    lines = [" ".join(["env", *environment, shlex.quote(start.command[0])])]
    for word in start.command[1:]:
        if word.startswith("-"):
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n    ".join(lines)
