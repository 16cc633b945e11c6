# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by Alembic: every step over the connection that the store has open."""

from __future__ import annotations

from alembic import context

from harness.history.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
