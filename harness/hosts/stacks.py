# SPDX-License-Identifier: GPL-2.0-or-later
"""The stacks of all threads of a process that hangs, by gdb or eu-stack, where one of them is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

#: Reading the symbols of a QEMU takes gdb seconds; a process that cannot be traced makes it wait.
_SECONDS: Final = 60.0


def stack_command(pid: int) -> list[str] | None:
    """The command that prints the stacks of process ``pid``; None where neither program is there."""
    if gdb := shutil.which("gdb"):
        return [
            gdb,
            "-p",
            str(pid),
            "-nx",
            "-batch",
            "-ex",
            "set pagination off",
            "-ex",
            "thread apply all bt",
        ]
    if eu_stack := shutil.which("eu-stack"):
        return [eu_stack, "-p", str(pid)]
    return None


def stacks_of(pid: int) -> str:
    """The stacks of all threads, as text; what the kernel says of each where no debugger is there."""
    command = stack_command(pid)
    said = ""
    if command is not None:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
            said = done.stdout + done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            said = f"{command[0]}: {error}\n"
    else:
        said = "no stacks: neither gdb nor eu-stack is installed\n"
    return said + "\n" + kernel_view(pid)


def kernel_view(pid: int) -> str:
    """Each thread's name, state, system call and place of waiting, as the kernel tells them."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda path: int(path.name)):
        facts = [_read(task / name) for name in ("comm", "wchan", "syscall")]
        state = next((line for line in _read(task / "status").splitlines() if line.startswith("State:")), "")
        lines.append(
            f"thread {task.name} {facts[0]}: {state}; waits in {facts[1] or '-'}; call {facts[2] or '-'}"
        )
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
