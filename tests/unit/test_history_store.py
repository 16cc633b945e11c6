# SPDX-License-Identifier: GPL-2.0-or-later
"""The store of results: made, brought to a version, damaged, written by several, read back."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from harness.errors import InputError, MachineryError
from harness.history import store as store_module
from harness.history.ask import Selection, past_batches, past_runs
from harness.history.record import Batch, KeptRun, keep_batch, record_batch
from harness.history.schema import KEPT_BATCHES, KEPT_RUNS, METADATA, NEWEST_STEP
from harness.history.sink import HistorySink
from harness.history.store import DamagedStoreError, open_for_writing, open_store, store_url
from harness.report.finished import FinishedRun, SuiteReport

BEGAN = datetime(2026, 5, 1, 2, 3, 4, tzinfo=UTC)


def some_run(number: int = 1, **more: object) -> KeptRun:
    values: dict[str, object] = {
        "name": f"freed arm=info#{number}",
        "scenario": "freed",
        "outcome": "fail",
        "exit_status": 1,
        "reason": "a page is \0 wrong",
        "began": BEGAN,
        "seconds": 8.5,
        "rule": "lost",
        "seed": 2**64 - 1,
        "result": '{"a": 1}',
        "findings": [("lost", "memory", "a page", 3)],
        "measures": {"total_ms": 12.0},
    }
    return KeptRun(**{**values, **more})  # type: ignore[arg-type]


def some_batch(**more: object) -> Batch:
    return Batch(**{"kind": "suite", "name": "smoke", "command": "freepage", "began": BEGAN, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of the test's own, on a socket in a folder that only its user enters."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
    if not places:
        pytest.skip("no PostgreSQL: apt install postgresql")
    folder = tmp_path_factory.mktemp("pg")
    as_user: list[str] = []
    if os.geteuid() == 0:
        # It refuses to run as root.
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        os.chown(folder, 65534, 65534)
    data, programs = folder / "data", places[-1]
    words = ["initdb", "-D", data, "-U", "tester", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"]
    subprocess.run(
        [*as_user, programs / words[0], *words[1:]], check=True, capture_output=True, cwd="/", timeout=120
    )
    # It ends with this process, however that ends.
    alone = ["setpriv", "--pdeathsig=INT", *as_user[1:], "--"]
    server = subprocess.Popen(
        [*alone, programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd="/",
        text=True,
    )
    try:
        assert server.stderr is not None
        said = []
        for line in server.stderr:
            said.append(line)
            if "ready to accept connections" in line:
                break
        else:
            pytest.fail("".join(said))
        # Nobody reads on: a full pipe would stop the server.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield f"postgresql://tester@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store that is not there yet, in both kinds of database."""
    if request.param == "sqlite":
        yield str(tmp_path / "deep" / "history.sqlite")
        return
    address: str = request.getfixturevalue("server")
    yield address
    url = store_url(address)
    assert url is not None
    with store_module._engine(url).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))


def test_what_is_kept_is_read_back(place: str) -> None:
    url = store_url(place)
    assert url is not None
    with open_store(url) as store:
        assert record_batch(store, some_batch(exit_status=1, seconds=9.0), [some_run(1), some_run(2)]) == (
            2,
            0,
        )
        with store.reading() as connection:
            (first, second) = past_runs(connection, Selection())
            (batch,) = past_batches(connection)
            result = connection.execute(select(KEPT_RUNS.c.result)).scalars().first()
    assert (first.name, first.rule, first.began, first.kind) == ("freed arm=info#1", "lost", BEGAN, "suite")
    assert first.label == second.label == "freed arm=info"
    assert "\0" not in first.reason
    assert batch.counts == {"fail": 2}
    assert batch.exit_status == 1
    assert batch.began == BEGAN
    assert result is not None
    assert zlib.decompress(result) == b'{"a": 1}'


def test_nothing_is_kept_twice(place: str) -> None:
    url = store_url(place)
    assert url is not None
    with open_store(url) as store:
        record_batch(store, some_batch(), [some_run(1)])
        assert record_batch(store, some_batch(), [some_run(1)]) == (0, 1)
        # The rest of a batch that was kept in part goes to that batch.
        assert record_batch(store, some_batch(), [some_run(1), some_run(2)]) == (1, 1)
        with store.reading() as connection:
            assert len(past_runs(connection, Selection())) == 2
            assert len(connection.execute(select(KEPT_BATCHES.c.id)).all()) == 1


def test_the_steps_make_the_tables_that_the_code_uses(place: str) -> None:
    url = store_url(place)
    assert url is not None
    with open_store(url) as store, store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    steps = ScriptDirectory(str(Path(store_module.__file__).with_name("migrations")))
    assert steps.get_current_head() == NEWEST_STEP


def test_a_store_of_a_newer_version_is_not_touched(place: str) -> None:
    url = store_url(place)
    assert url is not None
    with open_store(url) as store, store.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="written by a newer version"), open_for_writing(place):
        pass
    with store_module._engine(url).connect() as connection:
        assert store_module._version(connection) == "9999"


def test_several_writers_wait_for_each_other(place: str) -> None:
    url = store_url(place)
    assert url is not None
    wrong: list[BaseException] = []

    def write(number: int) -> None:
        try:
            # The first of them makes the tables, too.
            with open_store(url) as store:
                record_batch(store, some_batch(name=f"s{number}"), [some_run(number)])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with open_store(url) as store, store.reading() as connection:
        assert len(past_runs(connection, Selection())) == 6


@pytest.mark.parametrize("damage", ["not a database", "torn", "one page"])
def test_a_damaged_store_is_moved_aside_whole(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.sqlite"
    with open_for_writing(str(path)) as store:
        assert store is not None
        record_batch(store, some_batch(), [some_run(number) for number in range(200)])
    content = bytearray(path.read_bytes())
    if damage == "one page":
        # Of the runs' own rows, which neither opening the store nor adding to it reads.
        at = content.index(b"a page is") // 4096 * 4096
        content[at : at + 4096] = b"\xa5" * 4096
    elif damage == "torn":
        content[4096:] = b"\xa5" * (len(content) - 4096)
    else:
        content[:] = b"something else altogether, and long enough to be looked at" * 100
    path.write_bytes(content)
    with open_for_writing(str(path)) as store:
        assert store is not None
        assert record_batch(store, some_batch(), [some_run(1)]) == (1, 0)
    said = capsys.readouterr().err
    assert "is damaged" in said
    (aside,) = tmp_path.glob("history.sqlite.damaged-*")
    assert aside.read_bytes() == bytes(content)


def test_a_reader_says_that_a_store_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"x" * 10_000)
    url = store_url(str(path))
    assert url is not None
    with pytest.raises(DamagedStoreError, match="is damaged"), open_store(url):
        pass
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_database_of_others_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE runs (miles INTEGER)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="not ours"), open_for_writing(str(path)):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("words", ["mysql://a@b/c", "sqlite://", "://", "postgresql://[::1/x"])
def test_what_is_no_store_is_bad_input(words: str) -> None:
    with pytest.raises(InputError):
        store_url(words)


def test_a_password_is_not_shown() -> None:
    url = store_url("postgresql://me:secret@host/db")
    assert url is not None
    assert "secret" not in store_module.shown(url)


def test_a_server_that_is_not_there_is_an_error_of_the_machine(tmp_path: Path) -> None:
    url = store_url(f"postgresql://a@/b?host={tmp_path}")
    assert url is not None
    with pytest.raises(MachineryError, match="cannot be opened"), open_store(url):
        pass


def test_off_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEPAGE_HISTORY", "off")
    with open_for_writing(None) as store:
        assert store is None


# --- a suite that writes while it runs


def finished(number: int) -> FinishedRun:
    return FinishedRun(
        name=f"idle#{number}",
        scenario="idle",
        outcome="error",
        exit_status=3,
        reason="lost",
        seed=None,
        began=BEGAN,
        seconds=1.0,
        folder=None,
    )


def report(runs: list[FinishedRun]) -> SuiteReport:
    return SuiteReport(suite="smoke", command="again", began=BEGAN, seconds=2.0, exit_status=3, runs=runs)


def test_a_suite_is_kept_as_it_runs_and_its_folder_adds_nothing(tmp_path: Path) -> None:
    from harness.history.read_folders import read_folder

    runs = [finished(1), finished(2)]
    with open_for_writing(str(tmp_path / "h.sqlite")) as store:
        assert store is not None
        sink = HistorySink(store)
        sink.begin("smoke", 2)
        sink.finished(runs[0])
        with store.reading() as connection:
            assert len(past_runs(connection, Selection())) == 1
        sink.finished(runs[1])
        sink.ended(report(runs))
        (tmp_path / "suite.json").write_text(report(runs).to_json())
        found = read_folder(tmp_path)
        assert record_batch(store, found.batch, found.runs) == (0, 2)
        with store.reading() as connection:
            (batch,) = past_batches(connection)
    assert (batch.command, batch.exit_status, batch.counts) == ("again", 3, {"error": 2})


def test_a_store_that_fails_takes_nothing_from_a_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there" / "h.sqlite"
    with open_for_writing(str(path)) as store:
        assert store is not None
        sink = HistorySink(store)
        sink.begin("smoke", 2)
        store.engine.dispose()
        shutil.rmtree(path.parent)
        sink.finished(finished(1))
        sink.finished(finished(2))
        sink.ended(report([]))
        keep_batch(store, some_batch(), [some_run()])
    said = capsys.readouterr().err
    assert said.count("no further run is kept") == 1
    assert said.count("not kept in the history") == 1


def test_of_a_suite_that_was_killed_the_whole_lines_are_read(tmp_path: Path) -> None:
    from harness.history.read_folders import read_folder

    line = finished(1).model_dump_json()
    (tmp_path / "runs.jsonl").write_text(f"{line}\n{line[:40]}")
    found = read_folder(tmp_path)
    assert found.batch.interrupted
    assert [run.name for run in found.runs] == ["idle#1"]
    (tmp_path / "runs.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"runs\.jsonl:1: not a run"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="the folder of no suite"):
        read_folder(tmp_path / "nowhere")
