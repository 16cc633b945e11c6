# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the store: SQLite in the user's data folder, or PostgreSQL by a URL.

A store of an older version is brought to this one's tables; one of a newer version is not touched.  A SQLite
file that is damaged is moved aside, whole, and said; it is never written over.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError

from harness.errors import InputError, MachineryError
from harness.history.schema import METADATA, NEWEST_STEP

#: Names the store where no option does: a path, a URL, or ``off``.
VARIABLE: Final = "FREEPAGE_HISTORY"
OFF: Final = "off"
#: An execution option of connections that are going to write.
_WRITES: Final = "freepage_writes"
#: The advisory lock under which a PostgreSQL store is brought to this version; any number that is ours.
_UPGRADE_LOCK: Final = 0x66726565_70616765
#: Seconds for which one writer waits for another.
_BUSY_SECONDS: Final = 60.0
_SQLITE: Final = "sqlite"
_POSTGRESQL: Final = "postgresql"
#: What SQLite says of a file that it cannot read (SQLITE_CORRUPT, SQLITE_NOTADB).
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def store_url(given: str | None) -> URL | None:
    """Which store: ``given``, else :data:`VARIABLE`, else the user's own; None: none at all.

    Raises :class:`InputError` for what is neither a path nor a URL of a database that is supported.
    """
    from platformdirs import user_data_path

    words = given if given is not None else os.environ.get(VARIABLE, "")
    if words == OFF:
        return None
    if not words:
        return _file_url(user_data_path("freepage-testbed") / "history.sqlite")
    if "://" not in words:
        return _file_url(Path(words).expanduser())
    try:
        url = make_url(words)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"not the URL of a store: {error}", hint=_HINT) from error
    match url.get_backend_name():
        case "sqlite" if url.database:
            return _file_url(Path(url.database))
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
    raise InputError(f"a store in {url.get_backend_name()} is not supported", hint=_HINT)


_HINT: Final = "give the path of a SQLite file, or postgresql://USER@HOST/DATABASE"


def _file_url(path: Path) -> URL:
    return URL.create(_SQLITE, database=str(path.absolute()))


def shown(url: URL) -> str:
    """A store's name for people: the file, or the URL without its password."""
    if url.get_backend_name() == _SQLITE:
        return str(url.database)
    return url.render_as_string(hide_password=True)


class DamagedStoreError(MachineryError):
    """The store could not be read; it is not at its place any more."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open store.  Use :meth:`reading` and :meth:`writing`, each a transaction."""

    url: URL
    engine: Engine

    @property
    def name(self) -> str:
        """For people."""
        return shown(self.url)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing.  Raises :class:`MachineryError`."""
        with _in_words(self.url), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all of it is kept, or nothing.  Raises :class:`MachineryError`."""
        with _in_words(self.url), self.engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection


@contextlib.contextmanager
def open_for_writing(given: str | None) -> Iterator[Store | None]:
    """Context manager: the store that results are to be kept in; None: in none.

    A damaged one is said and moved aside, and a new one begun.  Raises as :func:`open_store` otherwise.
    """
    from harness.terminal import print_error

    url = store_url(given)
    if url is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(open_store(url))
            _demand_whole(store)
        except DamagedStoreError as error:
            stack.close()
            print_error(f"freepage: {error.render()}")
            store = stack.enter_context(open_store(url))
        yield store


def _demand_whole(store: Store) -> None:
    """Look for damage in a SQLite file before anything is added to it."""
    if store.url.get_backend_name() != _SQLITE:
        return
    with store.reading() as connection:
        said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if said != "ok":
        store.engine.dispose()
        raise _moved_aside(store.url, said.splitlines()[-1])


def has_store(url: URL) -> bool:
    """Whether there is anything at the place of a SQLite store; a server is taken to be there."""
    return url.get_backend_name() != _SQLITE or Path(str(url.database)).exists()


@contextlib.contextmanager
def open_store(url: URL) -> Iterator[Store]:
    """Context manager: a store with this version's tables, made or brought up to it where need be.

    Raises :class:`InputError` for a store of a newer version, or a database that is something else;
    :class:`MachineryError` for one that cannot be reached; :class:`DamagedStoreError` for one that was moved
    aside.
    """
    engine = _engine(url)
    try:
        with _in_words(url):
            _demand_tables(engine, url)
        yield Store(url, engine)
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != _SQLITE:
        try:
            return create_engine(url)
        except ImportError as error:
            raise MachineryError(
                f"a store in PostgreSQL needs psycopg: {error}",
                hint="pip install 'freepage-testbed[postgresql]'",
            ) from error
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder of the store {path}: {error.strerror}", hint=_HINT
        ) from error
    if path.exists() and not path.is_file():
        raise InputError(f"the store {path} is not a file", hint=_HINT)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    # Python's module would begin transactions by itself, and none for a change of tables.
    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    # A writer that first reads would be refused as soon as another one writes.  It takes the lock at
    # once, and waits.
    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _demand_tables(engine: Engine, url: URL) -> None:
    with engine.connect() as connection:
        version = _version(connection)
        if version == NEWEST_STEP:
            return
        if version is None:
            foreign = sorted(set(inspect(connection).get_table_names()) & {*METADATA.tables})
            if foreign:
                raise InputError(
                    f"{shown(url)} has a table {foreign[0]!r} that is not ours: it is no store of results",
                    hint=_HINT,
                )
    _upgrade(engine, version, url)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(engine: Engine, version: str | None, url: URL) -> None:
    # Imported here: a store of this version does not need it, and it takes long to load.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise InputError(
            f"the store {shown(url)} was written by a newer version of freepage (its tables are {version!r}, "
            f"this version knows {NEWEST_STEP!r})",
            hint="use that version, or name another store with --history",
        )
    with engine.execution_options(**{_WRITES: True}).begin() as connection:
        if connection.dialect.name == _POSTGRESQL:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _UPGRADE_LOCK})
        if _version(connection) == NEWEST_STEP:
            return  # another process was quicker
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise MachineryError(
                f"the store {shown(url)} cannot be brought to this version: {error}"
            ) from error


@contextlib.contextmanager
def _in_words(url: URL) -> Iterator[None]:
    """What SQLAlchemy raises as an error of ours; a damaged file is moved aside."""
    try:
        yield
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGED:
            raise _moved_aside(url, str(error.orig)) from error
        words = str(error.orig).strip().splitlines()[0] if error.orig is not None else str(error)
        what = "cannot be opened" if isinstance(error, OperationalError) else "does not do what is asked"
        raise MachineryError(f"the store {shown(url)} {what}: {words}") from error
    except SQLAlchemyError as error:
        raise MachineryError(f"the store {shown(url)}: {error}") from error


def _moved_aside(url: URL, why: str) -> MachineryError:
    path = Path(str(url.database))
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('~')[0]}~{number}")
    try:
        path.rename(aside)
        for tail in ("-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    except OSError as error:
        return MachineryError(
            f"the store {path} is damaged ({why}), and cannot be moved aside: {error.strerror}",
            hint=f"move it away yourself, or set {VARIABLE}",
        )
    return DamagedStoreError(
        f"the store {path} is damaged ({why}); it was moved to {aside.name} beside it",
        hint="'.recover' of sqlite3 reads what is left; 'freepage history import' reads run folders again",
    )
