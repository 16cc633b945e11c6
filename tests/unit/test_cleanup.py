# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU has cleaned up when it no longer lists the migration."""

from __future__ import annotations

from typing import cast

import pytest

from harness.errors import MachineryError
from harness.migration.cleanup import await_cleanup
from harness.migration.qmp import CommandError, Monitor

CHARDEV = {"type": "chardev", "id": "freepage-monitor"}
MIGRATION = {"type": "migration"}


class Answers:
    """Gives one answer after the other, the last one for ever."""

    side = "source"

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0

    def execute(self, command: str) -> object:
        assert command == "query-yank"
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        (([CHARDEV],), 1),
        (([MIGRATION, CHARDEV], [MIGRATION], [CHARDEV]), 3),
        (([MIGRATION], []), 2),
        ((CommandError("no such command"),), 1),
    ],
)
def test_it_is_asked_until_the_migration_is_gone(answers: tuple[object, ...], asked: int) -> None:
    monitor = Answers(*answers)
    await_cleanup(cast(Monitor, monitor))
    assert monitor.asked == asked


def test_one_that_never_cleans_up() -> None:
    with pytest.raises(MachineryError, match=r"the source's QEMU .* has not cleaned up after it within"):
        await_cleanup(cast(Monitor, Answers([MIGRATION])), seconds=0.01)
