# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the store, for SQLite and PostgreSQL alike.

``migrations/versions`` makes them, step by step; ``tests/unit/test_history_store.py`` holds the two against
each other.  What is asked often is in columns.  A run's whole result.json is kept beside them, compressed, so
that a later version can ask for what this one did not think of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

#: The newest step in ``migrations/versions``: a store at this one needs no Alembic to be opened.
NEWEST_STEP: Final = "0001"

METADATA: Final = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone in Python, and in UTC in the database, where SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        return None if value is None else value.replace(tzinfo=UTC)


#: What one command has made.  ``uid``: the same wherever the batch was read from, so that none is kept twice.
KEPT_BATCHES: Final = Table(
    "batches",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("seed", BigInteger),
    Column("shard", Text),
    Column("began", UtcTime, nullable=False),
    Column("seconds", Float),
    Column("exit_status", Integer),
    Column("interrupted", Boolean, nullable=False),
    Column("host", JSON, nullable=False),
    Index("batches_began", "began"),
)

KEPT_RUNS: Final = Table(
    "runs",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("batch_id", Integer, ForeignKey("batches.id"), nullable=False),
    Column("uid", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("scenario", Text, nullable=False),
    Column("dimensions", JSON, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("exit_status", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rule", Text),
    Column("seed", BigInteger),
    Column("arm", Text, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("accelerator", Text, nullable=False),
    Column("qemu", Text, nullable=False),
    Column("build", Text, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("began", UtcTime, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("folder", Text),
    Column("replay", Text, nullable=False),
    Column("result", LargeBinary),
    Index("runs_batch", "batch_id"),
    Index("runs_began", "began"),
    Index("runs_scenario", "scenario", "began"),
)

FINDINGS: Final = Table(
    "findings",
    METADATA,
    Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("count", Integer, nullable=False),
)

MEASURED: Final = Table(
    "measures",
    METADATA,
    Column("run_id", Integer, ForeignKey("runs.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Index("measures_name", "name"),
)
