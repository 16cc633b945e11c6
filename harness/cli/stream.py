# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage stream``: what a saved migration stream holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, app, print_json
from harness.errors import InputError
from harness.units import human_size

if TYPE_CHECKING:
    from harness.migstream.account import StreamedGuest


@app.command("stream")
def show_stream(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="What QEMU wrote to file:FILE or exec:'cat > FILE'; or a folder of its connections.",
        ),
    ],
    json: Json = False,
) -> None:
    """Say what a migration stream holds: machine, memory page by page, devices, commands."""
    from harness.migstream.account import read_stream
    from harness.migstream.folder import StreamFiles, stream_files
    from harness.migstream.source import StreamError

    if file.exists() and not file.is_file() and not file.is_dir():
        raise InputError(f"{file} is not a regular file", hint="save the stream to a file first")
    try:
        if file.is_dir():
            account = StreamFiles.of(list(stream_files(file))).read()
        else:
            with file.open("rb") as reading:
                account = read_stream(reading)
    except StreamError as error:
        raise InputError(f"{file}: {error.message}") from error
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    if json:
        print_json(_document(account))
        return
    for line in _lines(account):
        typer.echo(line)


def _document(account: StreamedGuest) -> dict[str, object]:
    contents = account.contents
    return {
        "machine": contents.machine,
        "page_size": contents.page_size,
        "capabilities": list(contents.capabilities),
        "commands": contents.commands,
        "bytes": account.bytes.total,
        "bytes_by_kind": {
            "whole": account.bytes.whole,
            "deltas": account.bytes.deltas,
            "devices": account.bytes.devices,
            "rest": account.bytes.rest,
        },
        "memory_sections": contents.memory_sections,
        "multifd_flushes": contents.flushes,
        "blocks": [
            {
                "name": block.name,
                "bytes": block.size,
                "full": block.full,
                "zero": block.zero,
                "delta": block.delta,
                "delta_bytes": block.delta_bytes,
                "pages_sent": block.sent_pages,
                "pages_sent_again": block.sent_again,
                "pages_never_sent": block.pages - block.sent_pages,
            }
            for block in account.blocks.values()
        ],
        "devices": [
            {
                "name": device.name,
                "instance": device.instance,
                "version": device.version,
                "offset": device.offset,
                "bytes": len(device.state),
            }
            for device in contents.devices
        ],
        "described": contents.description is not None,
    }


def _lines(account: StreamedGuest) -> list[str]:
    contents = account.contents
    lines = [
        f"machine {contents.machine or 'not named'}, pages of {human_size(contents.page_size)}, "
        f"{human_size(account.bytes.total)} in all"
    ]
    if contents.capabilities:
        lines.append(f"capabilities that both sides must agree on: {', '.join(contents.capabilities)}")
    if contents.commands:
        lines.append(f"commands: {', '.join(contents.commands)}")
    lines.append("")
    lines.append(f"{'block':32} {'pages':>9} {'full':>9} {'zero':>9} {'deltas':>9} {'again':>9} {'never':>9}")
    for block in account.blocks.values():
        never = block.pages - block.sent_pages
        lines.append(
            f"{block.name:32} {block.pages:>9} {block.full:>9} {block.zero:>9} {block.delta:>9} "
            f"{block.sent_again:>9} {never:>9}"
        )
    lines.append("")
    lines.append(f"{'device':44} {'instance':>10} {'version':>8} {'bytes':>9}")
    lines += [
        f"{device.name:44} {device.instance:>10} {device.version:>8} {len(device.state):>9}"
        for device in contents.devices
    ]
    if contents.description is None:
        lines.append("QEMU has left no description of the devices' fields")
    return lines
