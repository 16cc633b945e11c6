# SPDX-License-Identifier: GPL-2.0-or-later
"""By what a migration goes: every transport of QEMU's, and what the QEMUs were told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.testing import Freepage

pytestmark = pytest.mark.slow


def told(out: Path, command: str) -> list[dict[str, Any]]:
    """The arguments with which QEMUs were told to do something, in order."""
    files = [out / "qmp.jsonl", *sorted(out.glob("move-*/qmp.jsonl"))]
    said = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    messages = [one["execute"] for one in said if isinstance(one.get("execute"), dict)]
    return [one["arguments"] for one in messages if one.get("execute") == command]


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """A small guest that writes."""
    rewrite = {"workload.kind": "rewrite", "workload.noise": "32MiB", "workload.rate": 500}
    return freepage.with_defaults(memory="192MiB", arm="off", set=rewrite)


def test_unix_with_several_channels(freepage: Freepage) -> None:
    keys = {"migration.over": "unix", "migration.multifd": 2, "migration.address": "channels"}
    run = freepage.run("idle", set=keys)
    assert run.result.verdict == "pass", str(run)
    [there] = told(run.folder, "migrate")
    assert there["channels"][0]["addr"]["type"] == "unix"


def test_there_by_a_descriptor_back_by_a_command_and_there_by_a_pipe(
    freepage: Freepage, tmp_path: Path
) -> None:
    """Broken and recovered in postcopy on its way there, by another pair of sockets."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: by-descriptor\n"
        "migration: {over: fd, postcopy: true, bandwidth: 16MiB/s}\n"
        "moves: [{}, {migration: {over: exec, postcopy: false}},\n"
        "        {migration: {over: pipe, postcopy: false}}]\n"
        "script:\n"
        "- {at: pass, number: 3, do: [{action: postcopy-start, bandwidth: 4MiB/s}]}\n"
        "- {at: postcopy-active, do: [{action: postcopy-break}]}\n"
        "- {at: postcopy-paused, do: [{action: postcopy-recover}]}\n",
        encoding="utf-8",
    )
    run = freepage.run(str(file))
    assert run.result.verdict == "pass", str(run)
    first, again, back, there = (one["uri"] for one in told(run.folder, "migrate"))
    assert first == there
    # It was given to both before the first broke.
    assert again == f"{first}-1"
    assert first.startswith("fd:")
    assert back.startswith("exec:")


@pytest.mark.parametrize("by", ["fd", "fdset"])
def test_to_a_file_that_qemu_is_handed(freepage: Freepage, by: str) -> None:
    keys: dict[str, object] = {"migration.to": "file", "migration.file.by": by}
    if by == "fdset":
        keys |= {"migration.mapped_ram": True, "migration.multifd": 2}
    run = freepage.run("idle", set=keys)
    assert run.result.verdict == "pass", str(run)
    [uri] = (one["uri"] for one in told(run.folder, "migrate"))
    assert uri.startswith({"fd": "fd:", "fdset": "file:/dev/fdset/"}[by])
