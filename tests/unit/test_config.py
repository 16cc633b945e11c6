# SPDX-License-Identifier: GPL-2.0-or-later
"""Options from files and variables: what is closer wins, and what is wrong is said with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.main import get_command

from harness.cli import app, config
from harness.cli.manual import manual_lines
from harness.errors import InputError
from harness.invoke import Output, child_environment, invoke


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, and a user's that is empty."""
    project = tmp_path / "project"
    (project / "below").mkdir(parents=True)
    monkeypatch.chdir(project / "below")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in [name for name in os.environ if name.startswith("FREEPAGE_")]:
        monkeypatch.delenv(name)
    return project


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "freepage.toml").write_text(text)
    return folder / "freepage.toml"


def test_the_closer_file_wins(here: Path, tmp_path: Path) -> None:
    user = write(
        tmp_path / "user" / "freepage-testbed",
        '[run]\nmemory = "1GiB"\nseed = 3\n[environment]\ncache = "/user"\nverbosity = "quiet"\n',
    )
    project = write(
        here, '[run]\nmemory = "512MiB"\nset = ["a=1", "b=2"]\njson = true\n[environment]\ncache = "/x"\n'
    )
    write(here.parent, "this is not read")
    root = get_command(app)
    found = config.load_config(root)
    assert found.files == (user, project)
    assert config.as_defaults(root, found) == {
        "run": {"memory": "512MiB", "seed": 3, "settings": ["a=1", "b=2"], "json": True}
    }
    assert found.environment == {"FREEPAGE_CACHE": "/x", "FREEPAGE_VERBOSITY": "quiet"}


def test_a_file_may_be_named_or_none(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "[run]\nseed = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[bench.run]\nrepeat = 2\n")
    root = get_command(app)
    monkeypatch.setenv("FREEPAGE_CONFIG", str(other))
    assert config.as_defaults(root, config.load_config(root)) == {"bench": {"run": {"repeat": 2}}}
    for nothing in ("none", ""):
        monkeypatch.setenv("FREEPAGE_CONFIG", nothing)
        assert config.load_config(root).files == ()
    monkeypatch.setenv("FREEPAGE_CONFIG", str(tmp_path / "nosuch"))
    with pytest.raises(InputError, match="No such file"):
        config.load_config(root)


def test_a_file_of_another_user_is_not_read(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "[run]\nseed = 1\n")
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    os.chown(here / "freepage.toml", mine + 2, -1) if mine == 0 else None
    assert config.load_config(get_command(app)).files == ()
    assert "belongs to another user" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("\x00", "not TOML"),
        ("[nosuch]\n", "nosuch: there is no such key"),
        ("[run]\nmemroy = 1\n", "run.memroy: there is no such key"),
        ("[run]\nhelp = true\n", "run.help: there is no such key"),
        ("run = 3\n", "run: expected a table, got 3"),
        ("[bench]\nrepeat = 3\n", "bench.repeat: there is no such key"),
        ("[run]\njson = 1\n", "run.json: expected true or false"),
        ('[run]\nset = "a=1"\n', "run.set: expected a list of texts"),
        ("[run]\nset = [true]\n", "run.set: expected a list of texts"),
        ("[run]\nmemory = true\n", "run.memory: expected a text or a number"),
        ("[run]\nmemory = [1]\n", "run.memory: expected a text or a number"),
        ("[run]\nmemory = 2020-01-01\n", "run.memory: expected a text or a number"),
        ("[environment]\nnosuch = 'x'\n", "environment.nosuch: there is no such key"),
        ("[environment]\ncache = 3\n", "environment.cache: expected a text"),
        ("environment = 3\n", "environment: expected a table"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(here: Path, text: str, words: str) -> None:
    file = write(here, text)
    with pytest.raises(InputError, match=words) as caught:
        config.load_config(get_command(app))
    assert str(file) in caught.value.message


def test_near_keys_are_named(here: Path) -> None:
    write(here, "[run]\nmemroy = 1\n")
    with pytest.raises(InputError) as caught:
        config.load_config(get_command(app))
    assert "did you mean 'memory'?" in (caught.value.hint or "")


def ask(*words: str, **env: str) -> Output:
    """The command as a user starts it, in this folder and with these variables."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
        timeout=60,
    )
    return Output(done.returncode, done.stdout, done.stderr)


def test_what_counts_on_the_way_to_a_command(here: Path) -> None:
    write(here, "[scenario.list]\njson = true\n")
    assert ask("scenario", "list").stdout.startswith("[")
    assert not ask("scenario", "list", FREEPAGE_SCENARIO_LIST_JSON="0").stdout.startswith("[")
    # What we start ourselves is told all by its words.
    assert not invoke(["scenario", "list"], timeout=60).stdout.startswith("[")


def test_config_tells_where_an_option_is_from(here: Path) -> None:
    file = write(here, "[run]\nseed = 7\n")
    said = ask("config", FREEPAGE_CACHE="/x").stdout
    assert f"run --seed 7  ({file})" in said
    assert "FREEPAGE_CACHE=/x" in said


def test_a_wrong_value_in_a_file_is_bad_input(here: Path) -> None:
    write(here, '[run]\nseed = "many"\n')
    said = ask("run", "idle")
    assert said.exit_code == 2
    assert "--seed" in said.stderr


def test_what_stands_for_options_is_not_passed_on() -> None:
    env = {"FREEPAGE_RUN_MEMORY": "1", "FREEPAGE_CACHE": "2", "FREEPAGE_DEBIAN_MIRROR": "3", "HOME": "4"}
    assert child_environment(env) == {
        "FREEPAGE_CACHE": "2",
        "FREEPAGE_DEBIAN_MIRROR": "3",
        "HOME": "4",
        "FREEPAGE_CONFIG": "none",
    }


def test_the_manual_has_every_command_and_option() -> None:
    text = "\n".join(manual_lines(get_command(app))).replace("\\-", "-")
    for words in ("freepage run SCENARIO", "freepage cache verify", "--qemu NAME|PATH", ".SH EXIT STATUS"):
        assert words in text
    assert "freepage probe" not in text
    # A line that begins with a dot is a request; only ours do.
    requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".RI", ".nf", ".fi"}


def test_a_shell_is_told_how_words_go_on() -> None:
    for words, number, expected in (
        ("freepage ca", "1", "cache"),
        ("freepage run fr", "2", "freed"),
        ("freepage run --fault answer-af", "3", "answer-after-sync"),
    ):
        said = ask(_FREEPAGE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number)
        assert expected in said.stdout.splitlines()
