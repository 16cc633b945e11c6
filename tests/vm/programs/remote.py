# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs between two hosts that are reached by ssh; prints one JSON object.

python -m tests.vm.programs.remote SCENE OUT [QEMU]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.events import EventStream
from harness.hosts.enter import enter
from tests.vm.programs.ssh_hosts import Ssh, ssh_hosts

MEMORY = "256MiB"
SMALL = ["--memory", MEMORY, "--set", "workload.noise=120MiB"]


def freepage(ssh: Ssh, out: Path, *arguments: str, config: str = "config") -> list[str]:
    command = [sys.executable, "-P", "-m", "harness", "run", *arguments, "--json", "--out", str(out)]
    return [*command, *ssh.options(config)]


def run(ssh: Ssh, out: Path, qemu: list[str]) -> object:
    """One whole run; what is on the hosts before and after it."""
    before = ssh.left()
    done = subprocess.run(
        freepage(ssh, out / "run", "freed", *SMALL, *qemu), capture_output=True, text=True, check=False
    )
    return {
        "status": done.returncode,
        "result": json.loads(done.stdout) if done.stdout else None,
        "said": done.stderr,
        "before": before,
        "after": ssh.left(),
    }


SCENES = {"run": run}


def main(scene: str, out: str, *qemu: str) -> int:
    folder = Path(out)
    folder.mkdir(exist_ok=True)

    def inside() -> int:
        with ssh_hosts(EventStream(), folder / "ssh") as ssh:
            print(json.dumps(SCENES[scene](ssh, folder, ["--qemu", *qemu] if qemu else [])))
        return 0

    return enter(inside, keep=[folder])


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(*sys.argv[1:]))
