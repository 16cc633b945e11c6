# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches, runs, findings and measures.

A step is never changed once it has been released: stores of every version go through it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger),
        sa.Column("shard", sa.Text),
        sa.Column("began", sa.DateTime, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("exit_status", sa.Integer),
        sa.Column("interrupted", sa.Boolean, nullable=False),
        sa.Column("host", sa.JSON, nullable=False),
    )
    op.create_index("batches_began", "batches", ["began"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("batch_id", sa.Integer, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("uid", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scenario", sa.Text, nullable=False),
        sa.Column("dimensions", sa.JSON, nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("exit_status", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rule", sa.Text),
        sa.Column("seed", sa.BigInteger),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("memory", sa.BigInteger, nullable=False),
        sa.Column("accelerator", sa.Text, nullable=False),
        sa.Column("qemu", sa.Text, nullable=False),
        sa.Column("build", sa.Text, nullable=False),
        sa.Column("kernel", sa.Text, nullable=False),
        sa.Column("began", sa.DateTime, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("folder", sa.Text),
        sa.Column("replay", sa.Text, nullable=False),
        sa.Column("result", sa.LargeBinary),
    )
    op.create_index("runs_batch", "runs", ["batch_id"])
    op.create_index("runs_began", "runs", ["began"])
    op.create_index("runs_scenario", "runs", ["scenario", "began"])
    op.create_table(
        "findings",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "measures",
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Float, nullable=False),
    )
    op.create_index("measures_name", "measures", ["name"])
