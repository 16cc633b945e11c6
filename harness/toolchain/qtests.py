# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own tests, built from the patched tree: its qtests, and its fuzzer with sanitizers.

    tests = build_qtests(builder)
    tests.run("virtio-balloon-info-test", folder, prefix="/x86_64/virtio-balloon/info")

The fuzzer is QEMU's own harness for libFuzzer, compiled by clang with ASan and
UBSan; the emulator and the qtest that are built with it have them, too.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.arch import GUEST
from harness.errors import MachineryError
from harness.toolchain.cache import MIB, key_of
from harness.toolchain.firmware import firmware
from harness.toolchain.qemu import PATCHED, TARGET, QemuBuilder
from harness.toolchain.run import build_environment, find_program
from harness.toolchain.variant import OPTIONS, PLAIN_BUILD, Variant

OUR_TEST = "virtio-balloon-info-test"
BALLOON_TEST = "virtio-balloon-test"
MIGRATION_TEST = "migration-test"
TESTS = (OUR_TEST, BALLOON_TEST, MIGRATION_TEST)

_FUZZER = GUEST.qemu_fuzzer
FUZZ_TARGETS = ("virtio-balloon-info-fuzz", "generic-fuzz-virtio-balloon-info")

# Neither KVM, a network, a disk nor a display is fuzzed here.
_LEFT_OUT = (
    "--enable-kvm",
    "--enable-slirp",
    "--enable-gnutls",
    "--enable-vhost-user",
    "--enable-vhost-user-blk-server",
    "--enable-vhost-vdpa",
    "--enable-linux-aio",
    "--enable-linux-io-uring",
    "--enable-vnc",
    "--enable-spice",
    "--enable-spice-protocol",
    "--enable-tools",
)
SANITIZED = Variant(
    "sanitized",
    (
        *(option for option in OPTIONS if option not in _LEFT_OUT),
        "--cc=clang",
        "--cxx=clang++",
        "--enable-fuzzing",
        "--enable-asan",
        "--enable-ubsan",
    ),
)

_PLACE = "tests/qtest"
_RESULT = re.compile(r"^(not ok|ok) \d+ (\S+)(.*)$")


@dataclasses.dataclass(frozen=True)
class TapResult:
    """What a test program printed, and how it ended."""

    status: int
    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, status: int, output: str) -> TapResult:
        """Read the Test Anything Protocol."""
        sorted_in: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
        for match in filter(None, (_RESULT.match(line) for line in output.splitlines())):
            kind = "failed" if match[1] == "not ok" else "skipped" if "# SKIP" in match[3] else "passed"
            sorted_in[kind].append(match[2])
        return cls(status, **{kind: tuple(names) for kind, names in sorted_in.items()}, output=output)

    @property
    def ok(self) -> bool:
        """Nothing failed, and something was tested."""
        return self.status == 0 and not self.failed and bool(self.passed)

    def __str__(self) -> str:
        return (
            f"exit status {self.status}: {len(self.passed)} passed, {len(self.skipped)} skipped, "
            f"{len(self.failed)} failed\n{self.output}"
        )


@dataclasses.dataclass(frozen=True)
class QemuTests:
    """Built test programs, and the emulator that they test."""

    folder: Path
    firmware: tuple[Path, ...]

    def run(
        self,
        name: str,
        scratch: Path,
        *,
        prefix: str | None = None,
        seconds: float,
        more: Mapping[str, str] | None = None,
    ) -> TapResult:
        """Run one program (only tests below ``prefix``) in a folder of its own.

        ``seconds`` bounds one that hangs.  Raises :class:`MachineryError` then.
        """
        # qtest takes the target's name from the binary's, and offers no way to add options.
        # The default network card's ROM is in no package that the firmware is taken from.
        emulator = scratch / TARGET
        options = ["-nic", "none", *(word for folder in self.firmware for word in ("-L", str(folder)))]
        emulator.write_text(
            f'#!/bin/sh\nexec {shlex.quote(str(self.folder / TARGET))} "$@" {shlex.join(options)}\n',
            encoding="utf-8",
        )
        emulator.chmod(0o755)
        command = [str(self.folder / name), "-k", *(("-p", prefix) if prefix else ())]
        # Sockets are made there, whose paths must be short.
        with tempfile.TemporaryDirectory(prefix="qtest-") as temporary:
            env = build_environment(QTEST_QEMU_BINARY=str(emulator), TMPDIR=temporary, **(more or {}))
            return TapResult.of(*_run(command, scratch, scratch, env, seconds))

    def fuzz(self, target: str, scratch: Path, *, seconds: int, seed: int) -> tuple[int, str]:
        """Fuzz one target for so many seconds; the fuzzer's status and what it printed."""
        corpus = scratch / "corpus"
        corpus.mkdir()
        # A target must be named before the fuzzer's own options.
        command = [
            str(self.folder / _FUZZER),
            f"--fuzz-target={target}",
            *(f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-timeout=60"),
            *("-rss_limit_mb=4096", f"-artifact_prefix={scratch}/", str(corpus)),
        ]
        env = build_environment(
            TMPDIR=str(scratch),
            ASAN_OPTIONS="detect_leaks=0",
            UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        )
        # It takes no -L: firmware is looked for in the folder where it is started.
        (here,) = self.firmware
        return _run(command, here, scratch, env, seconds + 600)


def _run(
    command: Sequence[str], cwd: Path, scratch: Path, env: Mapping[str, str], seconds: float
) -> tuple[int, str]:
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise MachineryError(
                f"{Path(command[0]).name} has not ended after {seconds:g} s", hint=f"look at {scratch}"
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
    (scratch / "output.txt").write_text(output, encoding="utf-8")
    return process.returncode, output


def build_qtests(builder: QemuBuilder) -> QemuTests:
    """QEMU's balloon and migration qtests, and ours."""
    targets = (TARGET, *(f"{_PLACE}/{name}" for name in TESTS))
    return _build(builder, "qtests", PLAIN_BUILD, targets)


def build_fuzzer(builder: QemuBuilder, extra: Sequence[Path] = ()) -> QemuTests:
    """Fuzzer, emulator and our qtest, with sanitizers; ``extra`` patches go on top (a deliberate fault).

    From nothing it takes a long time.
    """
    find_program("clang")
    return _build(builder, "fuzzer", SANITIZED, (_FUZZER, TARGET, f"{_PLACE}/{OUR_TEST}"), extra)


def _build(
    builder: QemuBuilder,
    kind: str,
    variant: Variant,
    targets: Sequence[str],
    extra: Sequence[Path] = (),
) -> QemuTests:
    patches = builder.patches(PATCHED, extra)
    key = key_of(qemu=builder.key(patches, variant), targets=targets, form=1)
    roms = firmware(builder.cache)

    def build(folder: Path) -> None:
        with (
            builder.cache.events.step(kind, version=builder.source.version) as step,
            builder.built(patches, variant, targets, step.note) as made,
        ):
            for target in targets:
                copy = folder / Path(target).name
                shutil.copyfile(made / target, copy)
                copy.chmod(0o755)

    what = f"QEMU {builder.source.version} ({kind})"
    return QemuTests(builder.cache.get(kind, key, build, what=what, space=600 * MIB), roms)
