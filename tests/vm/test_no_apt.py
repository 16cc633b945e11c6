# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that has neither apt nor dpkg, nor Debian's keys: this one, in a namespace that hides them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.toolchain.cache import CACHE_VARIABLE
from harness.toolchain.debian_archive import MIRROR_VARIABLE, mirrors
from tests.vm.conftest import LONGEST, MEMORY

pytestmark = pytest.mark.slow

NOBODY = 65534

#: Arguments: an empty folder, what the system is to say of itself, what to run.
WITHOUT_APT = """
empty=$1 release=$2
shift 2
for file in /usr/bin/apt* /usr/bin/dpkg* /usr/bin/mmdebstrap; do
	[ ! -f "$file" ] || mount --bind /dev/null "$file"
done
for folder in /var/lib/dpkg /var/lib/apt /etc/apt /usr/share/keyrings; do
	[ ! -d "$folder" ] || mount --bind "$empty" "$folder"
done
mount --bind "$release" /etc/os-release
exec "$@"
"""

FEDORA = 'ID=fedora\nNAME="Fedora Linux"\nVERSION_ID=43\n'


@dataclass(frozen=True)
class Bare:
    """The machine; ``place`` may be written to by anybody."""

    place: Path

    def run(
        self, *words: str | Path, user: int | None = None, release: str = FEDORA, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; as root only where the test is root and ``user`` is none."""
        (self.place / "os-release").write_text(release.encode().decode("unicode_escape"))
        root = os.geteuid() == 0
        enter: list[str | Path] = ["unshare", "--mount", "--propagation", "private"]
        enter += [] if root else ["--map-root-user"]
        enter += ["sh", "-euc", WITHOUT_APT, "sh", self.place / "empty", self.place / "os-release"]
        if root and user is not None:
            enter += ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
        env = {"HOME": str(self.place / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        env |= {CACHE_VARIABLE: str(self.place / "cache"), MIRROR_VARIABLE: mirrors()[0], **variables}
        return subprocess.run(
            [*enter, *words],
            cwd=self.place / "home",
            env=env,
            capture_output=True,
            text=True,
            timeout=2 * LONGEST,
            check=False,
        )


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    # Not pytest's own folder: an ordinary user may not enter that.
    with tempfile.TemporaryDirectory(prefix="freepage-bare-") as name:
        place = Path(name)
        place.chmod(0o755)
        for folder in ("empty", "home", "cache", "bin"):
            (place / folder).mkdir()
            (place / folder).chmod(0o777)
        yield Bare(place)


@pytest.fixture(params=[None, NOBODY], ids=["as-we-are", "nobody"])
def user(request: pytest.FixtureRequest) -> int | None:
    if request.param is not None and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    return None if request.param is None else int(request.param)


def test_from_an_empty_cache_to_a_verdict(bare: Bare, user: int | None, repository: Path) -> None:
    there = bare.run("sh", "-c", "command -v apt-get dpkg apt-config; ls /usr/share/keyrings; true")
    assert there.stdout == ""
    # A folder of the checkout's that an ordinary user may read.
    variables = {"PYTHONPATH": str(repository)}
    built = bare.run(sys.executable, "-m", "harness", "build", "kernel", "image", user=user, **variables)
    assert built.returncode == 0, built.stderr
    assert "package lists suite=bookworm" in built.stderr
    words = ("run", "idle", "--qemu", "debian:trixie", "--arm", "off", "--memory", MEMORY, "--out", "run")
    ran = bare.run(sys.executable, "-m", "harness", *words, user=user, **variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASS  idle" in ran.stdout


def write_program(bare: Bare, name: str, text: str) -> None:
    file = bare.place / "bin" / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("system", "program", "ask", "command", "names"),
    [
        ("ID=fedora", "dnf", "rpm", "dnf install", {"libvirt-daemon-driver-qemu", "glibc-devel"}),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "zypper", "rpm", "zypper install", {"libaio-devel"}),
        ("ID=endeavouros\nID_LIKE=arch", "pacman", "pacman", "pacman -S --needed", {"glibc", "libvirt"}),
        # A distribution of which nothing is known, with a manager that is.
        ("ID=other", "pacman", "pacman", "pacman -S --needed", {"glibc", "libvirt"}),
    ],
    ids=["fedora", "opensuse", "arch", "other"],
)
def test_what_to_install_is_said_with_the_systems_own_command(
    bare: Bare, repository: Path, system: str, program: str, ask: str, command: str, names: set[str]
) -> None:
    checkout = bare.place / "checkout"
    (checkout / "ci").mkdir(parents=True)
    for name in ("setup", "packages"):
        shutil.copy(repository / "ci" / name, checkout / "ci" / name)
    for name in {program, ask}:
        write_program(bare, name, "exit 1")  # no package is installed
    path = f"{bare.place / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = bare.run(checkout / "ci" / "setup", release=f"{system}\n", PATH=path)
    assert done.returncode == 3, done.stderr
    said = done.stderr.splitlines()[-1]
    assert f"install them, as root, and run this again:  {command} " in said
    assert names <= set(said.split())
    # What the programs and libraries of this machine prove is not asked for.
    assert not {"gcc", "make"} & set(said.split())
    assert not (checkout / ".venv").exists()
    # The command names the same, in the advice of its doctor.
    told = bare.run(
        *(sys.executable, "-m", "harness", "doctor", "--packages"),
        release=f"{system}\n",
        PATH=path,
        PYTHONPATH=str(repository),
    )
    assert names <= set(told.stdout.split())
    assert "libc6-dev" not in told.stdout


def test_a_system_of_which_nothing_is_known(bare: Bare, repository: Path) -> None:
    checkout = bare.place / "checkout"
    (checkout / "ci").mkdir(parents=True)
    for name in ("setup", "packages"):
        shutil.copy(repository / "ci" / name, checkout / "ci" / name)
    lines = [*(checkout / "ci" / "packages").read_text().splitlines(), "x  program:no-such-program  x  x  x"]
    (checkout / "ci" / "packages").write_text("\n".join(lines) + "\n")
    done = bare.run(checkout / "ci" / "setup", release="ID=other\n", PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    assert done.returncode == 3, done.stderr
    assert "none of apt, dnf, zypper and pacman is here, and these are missing: " in done.stderr
    assert "program:no-such-program" in done.stderr.split()
