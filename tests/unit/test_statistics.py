# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the numbers of QEMU and of libvirt."""

from __future__ import annotations

import pytest

from harness.errors import MachineryError
from harness.migration.statistics import from_job_stats, from_query_migrate, parse_ramblocks

ANSWER = {
    "status": "completed",
    "setup-time": 4,
    "downtime": 36,
    "total-time": 612,
    "ram": {
        "total": 554508288,
        "dirty-sync-count": 3,
        "multifd-bytes": 0,
        "transferred": 84934656,
        "normal": 20123,
        "duplicate": 115255,
        "page-size": 4096,
    },
}

RAMBLOCKS = """\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000000000 0x0000000020000000 0x0000000020000000 0x00007f3bd7e00000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000020080000 0x0000000000020000 0x0000000000200000 0x00007f3bd7400000  ro
"""  # noqa: E501


def test_query_migrate() -> None:
    numbers = from_query_migrate(ANSWER)
    assert (numbers.total_ms, numbers.downtime_ms, numbers.setup_ms) == (612, 36, 4)
    assert numbers.sent == 84934656
    assert (numbers.normal_pages, numbers.zero_pages, numbers.rounds) == (20123, 115255, 3)
    assert numbers.origin == "query-migrate"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"status": "active", "ram": {}},
        {"status": "completed"},
        {**ANSWER, "ram": {"transferred": 1}},
        {**ANSWER, "downtime": "36"},
    ],
)
def test_query_migrate_that_says_too_little(answer: object) -> None:
    with pytest.raises(MachineryError):
        from_query_migrate(answer)


def test_job_stats_agree_with_query_migrate() -> None:
    libvirt = from_job_stats(
        {
            "type": 3,
            "time_elapsed": 612,
            "downtime": 36,
            "setup_time": 4,
            "memory_processed": 84934656,
            "memory_normal": 20123,
            "memory_constant": 115255,
            "memory_iteration": 3,
            "memory_page_size": 4096,
        }
    )
    qemu = from_query_migrate(ANSWER)
    assert libvirt.origin == "libvirt"
    assert {**libvirt.as_dict(), "origin": ""} == {**qemu.as_dict(), "origin": ""}


def test_job_stats_that_say_too_little() -> None:
    with pytest.raises(MachineryError, match="downtime"):
        from_job_stats({"time_elapsed": 1})


def test_ramblocks() -> None:
    ram, tables = parse_ramblocks(RAMBLOCKS)
    assert (ram.name, ram.used, ram.address) == ("pc.ram", 512 << 20, 0x7F3BD7E00000)
    assert (tables.used, tables.total) == (0x20000, 0x200000)


def test_ramblocks_of_an_older_qemu_have_no_last_column() -> None:
    older = "\n".join(line[: -len("  RO")].rstrip() for line in RAMBLOCKS.splitlines())
    assert parse_ramblocks(older) == parse_ramblocks(RAMBLOCKS)


def test_ramblocks_in_an_unknown_form() -> None:
    with pytest.raises(MachineryError, match="unknown form"):
        parse_ramblocks("nothing of the kind")
