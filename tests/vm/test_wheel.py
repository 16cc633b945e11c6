# SPDX-License-Identifier: GPL-2.0-or-later
"""What a wheel installs, in an empty virtual environment elsewhere than the checkout, runs.

No network: the wheel is built with the hatchling that ci/setup has installed, and what
the project depends on is taken from the environment that runs the tests.  A .pth file
names that environment's folder of packages.  Python reads no .pth file of a folder that
it has from a .pth file, so the checkout's own package, which is installed there as
editable, stays out of sight; ``test_nothing_comes_from_the_checkout`` sees to that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.toolchain.cache import cache_root
from tests.vm.conftest import LONGEST, MEMORY

#: Somebody whose processes have no rights.
NOBODY = 65534

#: Root's cache may lie where nobody else can go: what is built is mounted elsewhere, for one command alone.
AS_NOBODY = """
mount --bind "$1" "$2"
shift 2
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""

#: Prints, as JSON, where the package is, what it calls its sources, and what its files are.
LOOK = """
import json, harness
from harness.toolchain.cache import tree_digest
from harness.toolchain.sources import FOLDERS, checkout, package_folder, python_files, sources
files = [path for name in FOLDERS for path in (sources() / name).rglob("*") if path.is_file()]
print(json.dumps({
    "package": harness.__file__,
    "checkout": str(checkout()),
    "sources": tree_digest(files, sources()),
    "programs": sorted(str(path.relative_to(sources())) for path in files if path.stat().st_mode & 0o111),
    "python": tree_digest(python_files(), package_folder()),
}))
"""


@dataclass(frozen=True)
class Installed:
    """The virtual environment with the wheel in it, and an empty folder to work in."""

    place: Path

    @property
    def python(self) -> Path:
        return self.place / "venv" / "bin" / "python"

    def run(
        self, *command: str | Path, prefix: Sequence[str | Path] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with hardly an environment, and no PYTHONPATH."""
        home = self.place / "home"
        env = {"HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        env |= {"FREEPAGE_CACHE": str(cache_root())} | variables
        return subprocess.run(
            [*prefix, *command],
            cwd=home,
            env=env,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    def freepage(self, *words: str, **variables: str) -> str:
        """What the command prints; it ends with status 0."""
        done = self.run(self.place / "venv" / "bin" / "freepage", *words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


def pip_wheel(project: Path, target: Path) -> Path:
    """Build a wheel of the project, with the build backend that is installed."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", target, project], cwd="/", check=True
    )
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that an ordinary user may enter, not below the checkout."""
    with tempfile.TemporaryDirectory(prefix="freepage-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def wheel(repository: Path, place: Path) -> Path:
    return pip_wheel(repository, place / "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, place: Path) -> Installed:
    it = Installed(place)
    (place / "home").mkdir(mode=0o777)
    (place / "home").chmod(0o777)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", it.python, "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], cwd="/", check=True)
    where = it.run(it.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    ours = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (Path(where) / "dependencies.pth").write_text("".join(f"{folder}\n" for folder in sorted(ours)))
    return it


def test_nothing_comes_from_the_checkout(installed: Installed, repository: Path) -> None:
    """And what comes with the wheel is the same, so that the cache's keys are."""
    done = installed.run(installed.python, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert Path(there["package"]).is_relative_to(installed.place)
    assert there["checkout"] == "None"
    here = json.loads(subprocess.check_output([sys.executable, "-c", LOOK], cwd=repository, text=True))
    assert here["checkout"] == str(repository)
    assert there["sources"] == here["sources"]
    assert there["programs"] == here["programs"]
    assert there["python"] == here["python"]


def test_a_source_distribution_gives_the_same_wheel(repository: Path, wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path],
        cwd=repository,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", archive], cwd=tmp_path, check=True)
    again = pip_wheel(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def test_lists(installed: Installed) -> None:
    assert "answer-after-sync" in installed.freepage("faults", "list")
    assert "freed" in installed.freepage("scenario", "list")
    assert "nightly" in installed.freepage("suite", "list")
    assert "libvirt-daemon" in installed.freepage("doctor", "--packages").splitlines()


def test_the_doctors_advice_can_be_followed(installed: Installed) -> None:
    # Without a compiler, for the sake of the advice.
    said = " ".join(installed.freepage("doctor", PATH="/usr/sbin:/sbin").split())
    assert "apt-get install --no-install-recommends" in said
    assert "ci/setup" not in said


def test_it_finds_what_the_checkout_has_built(installed: Installed, repository: Path) -> None:
    there = installed.freepage("build")
    here = subprocess.check_output(
        [sys.executable, "-m", "harness", "build"], cwd=repository, text=True, stderr=subprocess.DEVNULL
    )
    assert there == here


def test_a_guest_is_migrated(installed: Installed) -> None:
    said = installed.freepage("run", "freed", "--memory", MEMORY)
    assert "PASS  freed" in said


def test_an_ordinary_user_migrates_a_guest_too(installed: Installed) -> None:
    if os.geteuid() != 0:
        pytest.skip("every other test here shows it")
    as_nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    if installed.run(installed.python, "-c", "import libvirt", prefix=as_nobody).returncode != 0:
        pytest.skip(f"what {sys.executable} depends on is not for other users")
    cache = installed.place / "cache"
    (cache / "store").mkdir(parents=True)
    shutil.copytree(cache_root() / "facts", cache / "facts")
    for path in (cache, *cache.rglob("*")):
        shutil.chown(path, NOBODY, NOBODY)
    done = installed.run(
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", AS_NOBODY, "sh"),
        *(cache_root() / "store", cache / "store"),
        *(installed.place / "venv" / "bin" / "freepage", "run", "freed", "--memory", MEMORY, "--out", "mine"),
        FREEPAGE_CACHE=str(cache),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS  freed" in done.stdout
    assert (installed.place / "home" / "mine" / "result.json").stat().st_uid == NOBODY
