# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input of every kind, as a user gives it: exit status 2, words that say what is wrong, nothing else.

No traceback, no "fault of the testbed", nothing on stdout, no waiting.  Each case goes through the whole
command, in this process.  What is looked at deeper is in the tests of the part that it belongs to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cli
from harness.errors import ExitCode

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Case:
    """What is typed, and which file is there: ``@`` in a word stands for it."""

    words: tuple[str, ...]
    file: str = ""
    make: Callable[[Path], object] | None = None

    def __str__(self) -> str:
        return " ".join((*self.words, self.file))[:70]


def words(*lines: str) -> Iterator[Case]:
    for line in lines:
        yield Case(tuple(line.split(" ")))


WORDS = [
    *words(
        "nosuch",
        "--nosuch",
        "-x",
        "run",
        "run --nosuch",
        "run idle --arm",
        "run nosuch",
        "run fred",
        "run idel",
        "run idle --arm left",
        "run idle --arm INFO",
        "run idle --accel xen",
        "run idle --memory 1GB",
        "run idle --memory -1GiB",
        "run idle --memory 0B",
        "run idle --memory 1e400GiB",
        "run idle --memory nan",
        "run idle --memory 1000000TiB",
        "run idle --seed x",
        "run idle --seed -1",
        "run idle --seed 1.5",
        "run idle --seed 99999999999999999999999999999",
        "run idle --trace nosuch",
        "run idle --fault nosuch",
        "run idle --kernel nosuch",
        "run idle --kernel /nosuch",
        "run idle --kernel /dev/null",
        "run idle --qemu nosuch",
        "run idle --qemu /nosuch",
        "run idle --qemu /etc/passwd",
        "run idle --qemu /",
        "run idle --qemu debian:nosuch",
        "run idle --qemu stock --source-qemu stock --destination-qemu stock",
        "run idle --qemu-matrix stock --qemu stock",
        "run idle --qemu-matrix stock --nested",
        "run idle --source nosuch --destination nosuch",
        "run idle --source qemu+ssh://a/system",
        "run idle --out /nosuch\0/x",
        "run idle --out /dev/null/x",
        "run idle --out /etc",
        "run idle --out /etc/passwd",
        "run idle --out /etc/passwd/x",
        "run idle --out a\nb",
        "run idle nosuch",
        "shell",
        "shell nosuch",
        "scenario",
        "scenario nosuch",
        "scenario show",
        "scenario show nosuch",
        "scenario check",
        "explain",
        "explain nosuch",
        "explain /",
        "explain /etc/passwd",
        "explain / --pfn x",
        "explain / --pfn -1",
        "explain / --pfn 1 --wrong",
        "stream",
        "stream /nosuch",
        "bench compare",
        "bench compare a.json",
        "bench compare /nosuch /nosuch",
        "bench nosuch",
        "bench idle --arms left",
        "bench idle --arms ,",
        "bench idle --repeat 0",
        "bench idle --repeat x",
        "bench idle --memory 1GB",
        "bench compare /nosuch /nosuch --alpha 2",
        "faults",
        "faults nosuch",
        "faults run --only nosuch",
        "faults run --jobs 0",
        "build nosuch",
        "build --flavour nosuch",
        "build --kernel debug --flavour debug",
        "build --kernel nosuch",
        "doctor --source nosuch",
        "doctor nosuch",
        "suite",
        "suite run nosuch",
        "suite show nosuch",
        "suite run smoke -j 0",
        "suite run smoke --shard 3/2",
        "suite run smoke --shard x",
        "cache",
        "cache nosuch",
        "cache prune --days -1",
        "cache prune --days x",
        "cache import",
        "cache import /nosuch",
        "cache import /",
        "cache export /etc/passwd",
        "cache export /nosuch/x nosuchkind",
        "runs",
        "runs list --in /nosuch",
        "runs list --in /etc/passwd",
        "runs open nosuch",
        "runs logs nosuch",
        "runs prune --verdict nosuch",
        "runs prune --keep -1",
        "man nosuch",
        "config nosuch",
    ),
    Case(("run", "")),
    Case(("run", " ")),
    Case(("run", "a\0b")),
    Case(("run", "\udcff")),
    Case(("run", "x" * 5000)),
    Case(("run", "../" * 2000 + "x.yaml")),
    Case(("scenario", "check", "")),
    Case(("explain", "")),
    Case(("explain", "\0")),
    Case(("stream", "")),
    Case(("stream", "\0")),
    Case(("runs", "open", "")),
]

SETTINGS = [
    Case(("scenario", "show", "idle", "--set", text))
    for text in (
        "",
        "=",
        "x",
        "=x",
        "a..b=1",
        ".=1",
        "nosuch=1",
        "guest.nosuch=1",
        "guest=1",
        "guest.memory=",
        "guest.memory=x",
        "guest.memory=1GB",
        "guest.memory=[1]",
        "guest.memory={}",
        "guest.memory=-1",
        "guest.memory=1.5B",
        "guest.memory.x=1",
        "guest.cpus=0",
        "guest.cpus=1.5",
        "guest.cpus=100000",
        "arm=left",
        "arm=[",
        "arm={",
        "arm='",
        'arm="',
        "arm=[off, hint]",
        "migration=x",
        "migration.nosuch=1",
        "migration.timeout=never",
        "workload=[]",
        "workload.kind=nosuch",
        "expect.verdict=maybe",
        "strict=perhaps",
        "seed=x",
        "moves=[{]",
        "moves=[1]",
        "moves=x",
        "name=",
        "guest.xml=[{at: '['}]",
        "[=]",
        "a=&x",
        "arm=!!python/object:os.system",
        "guest.memory=[*a]",
        "arm=" + "[" * 100,
        "\0=1",
    )
]

TEXTS = {
    "nothing": "",
    "blank": "\n\n",
    "comment": "# only\n",
    "scalar": "idle",
    "number": "3",
    "list": "- a\n- b\n",
    "tab": "name:\n\tx: 1\n",
    "colon": "name: a: b\n",
    "twice": "name: a\nname: b\n",
    "alias": "name: &a x\narm: *a\n",
    "merge": "<<: {name: x}\n",
    "tag": "name: !!python/name:os.system x\n",
    "two documents": "name: a\n---\nname: b\n",
    "directive": "%YAML 9.9\n---\nname: a\n",
    "unclosed": "name: [a, b\n",
    "quote": 'name: "a\n',
    "deep": "a: " + "[" * 1000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(400)),
    "long key": "x" * 2000 + ": 1\n",
    "null": "~",
    "numeric keys": "1: 2\n",
    "complex key": "? [a]\n: b\n",
    "control": "name: a\x07b\n",
    "unknown": "nosuch: 1\n",
    "wrong section": "name: x\nsummary: x\nguest: [1]\n",
    "wrong type": "name: x\nsummary: x\nguest: {memory: [1]}\n",
    "json": json.dumps({"version": 1, "a": [1, 2, {"b": None}]}),
    "broken json": '{"version": 1, ',
    "json list": "[1, 2, 3]",
    "json number": "1e999",
    "html": "<html><body>404</body></html>",
    "toml": "[run]\nseed = 1\n",
}

BYTES = {
    "not utf-8": b"name: \xff\xfe\n",
    "utf-16": "name: a\n".encode("utf-16"),
    "zeros": bytes(4096),
    "elf": b"\x7fELF" + bytes(60),
    "gzip": b"\x1f\x8b" + bytes(60),
    "bom and rubbish": b"\xef\xbb\xbf\x01\x02",
}

#: Commands that read a file, and what they are typed like.
READERS: tuple[tuple[str, ...], ...] = (
    ("scenario", "check", "@"),
    ("suite", "show", "@"),
    ("bench", "compare", "@", "@"),
    ("stream", "@"),
    ("cache", "import", "@"),
)


def texts() -> Iterator[Case]:
    for name, text in TEXTS.items():
        for reader in READERS[:3]:
            yield Case(reader, name, lambda path, text=text: path.write_text(text))
    for name, data in BYTES.items():
        for reader in READERS:
            yield Case(reader, name, lambda path, data=data: path.write_bytes(data))


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def odd_files() -> Iterator[Case]:
    for reader in (*READERS, ("explain", "@"), ("runs", "list", "--in", "@")):
        yield Case(reader, "a FIFO", lambda path: os.mkfifo(path))
        yield Case(reader, "a link to itself", loop)
        yield Case(reader, "a link to nothing", lambda path: path.symlink_to("nowhere"))
        yield Case(reader, "/dev/zero", lambda path: path.symlink_to("/dev/zero"))
    for reader in READERS[:3]:
        yield Case(reader, "a terabyte of zeros", large)
    for reader in READERS:
        yield Case(reader, "a folder", lambda path: path.mkdir())


def damaged_runs() -> Iterator[Case]:
    def with_result(text: str) -> Callable[[Path], object]:
        def make(path: Path) -> None:
            path.mkdir()
            (path / "result.json").write_text(text)

        return make

    good = {"version": 1, "verdict": "pass"}
    for name, text in {
        "empty": "",
        "cut": '{"version": 1, "verd',
        "a list": "[]",
        "another version": json.dumps(good | {"version": 99}),
        "half": json.dumps(good),
        "deep": "[" * 100_000,
    }.items():
        for command in (("explain", "@"), ("explain", "@", "--devices"), ("explain", "@", "--json")):
            yield Case(command, f"result: {name}", with_result(text))


CASES = [*WORDS, *SETTINGS, *texts(), *odd_files(), *damaged_runs()]


def test_there_are_enough() -> None:
    assert len(CASES) >= 200
    assert len({str(case) for case in CASES}) > 0.9 * len(CASES)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with nothing built and nothing configured."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("FREEPAGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FREEPAGE_CACHE", str(tmp_path / "cache"))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def nothing_starts(*_: object, **__: object) -> None:
    pytest.fail("something was built or started")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_refused_in_words(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given.yaml"
    if case.make is not None:
        case.make(path)
    monkeypatch.setattr("harness.toolchain.run.subprocess.Popen", nothing_starts)
    monkeypatch.setattr(sys, "argv", ["freepage", *(word.replace("@", str(path)) for word in case.words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == ExitCode.INPUT, err
    assert "Traceback" not in err
    assert "fault of the testbed" not in err
    assert err.strip() or "Usage:" in out
    assert len(err) < 20_000
    assert out == "" or "Usage:" in out or case.words[:2] == ("faults", "run")
