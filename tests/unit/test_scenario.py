# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario language: what it means, and that every mistake is found and placed."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import InputError
from harness.scenario.load import (
    Churn,
    Freed,
    Override,
    Scenario,
    list_scenarios,
    load_scenario,
    noise_bytes,
    scenario_schema,
    scenario_text,
)
from harness.scenario.located import LocatedError, parse_yaml
from harness.scenario.resolve import MachineFacts, resolve
from harness.units import Percent

MIB, GIB = 2**20, 2**30
BIG = MachineFacts(memory_available=64 * GIB)
#: One for each kind of workload; there are others for races and modes.
SHIPPED = ("churn", "compile", "fragmented", "freed", "idle", "pagecache")


def write(folder: Path, text: str) -> str:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def errors(folder: Path, text: str, *overrides: str) -> list[str]:
    """What is wrong with a file, one line each, without the folder's name."""
    path = write(folder, text)
    with pytest.raises(InputError) as caught:
        load_scenario(path, overrides)
    assert caught.value.exit_code == 2
    return caught.value.message.replace(path, "my.yaml").splitlines()


def test_what_ships() -> None:
    assert {info.name for info in list_scenarios()} >= set(SHIPPED)
    for name in SHIPPED:
        scenario = load_scenario(name)
        assert scenario.name == scenario.workload.kind == name
        assert scenario.guest.memory == GIB
        assert scenario.arm == "info"
        assert scenario.strict
        assert scenario.seed is None
        assert scenario.summary
        assert scenario.expect.verdict == "pass"
        assert scenario.expect.skipped_percent_min
        assert "#" in scenario_text(name)[0]


def test_noise_is_a_share_of_memory() -> None:
    freed = load_scenario("freed", ["guest.memory=2GiB"])
    assert 1490 * MIB < noise_bytes(freed) < 1500 * MIB
    assert noise_bytes(freed) % 4096 == 0
    assert noise_bytes(load_scenario("freed", ["guest.memory=2GiB", "workload.noise=1500MiB"])) == 1500 * MIB
    assert noise_bytes(load_scenario("idle")) == 0
    # A kernel that keeps an eighth and more for itself has less to fill.
    debug = load_scenario("freed", ["guest.kernel=debug"])
    assert debug.guest.memory == GIB
    assert noise_bytes(debug) == (GIB - GIB // 8 - 160 * MIB) * 73 // 100 // 4096 * 4096


def test_overrides_change_anything() -> None:
    scenario = load_scenario(
        "freed",
        [
            "arm=off",
            "guest.memory=512MiB",
            "guest.cmdline=a=b c",
            "migration.bandwidth=32MiB/s",
            "workload.kind=churn",
            "workload.rate=10",
            "seed=7",
            "expect.skipped_percent_min=null",
            "strict=false",
        ],
    )
    assert scenario.arm == "off"
    assert scenario.guest.memory == 512 * MIB
    assert scenario.guest.cmdline == "a=b c"
    assert scenario.migration.bandwidth == 32 * MIB
    assert isinstance(scenario.workload, Churn)
    assert scenario.workload.rate == 10
    assert (scenario.seed, scenario.expect.skipped_percent_min, scenario.strict) == (7, None, False)


def test_words_are_words() -> None:
    """YAML 1.1 would read off as False, 6.10 as 6.1, and 1_0 as 10."""
    scenario = load_scenario("idle", ["arm=off", "guest.kernel=./6.10"])
    assert (scenario.arm, scenario.guest.kernel) == ("off", "./6.10")


def test_every_mistake_is_found_and_placed(tmp_path: Path) -> None:
    text = """\
name: Bad Name
sumary: x
arm: of
memory: 2GiB
guest:
  memory: 2GB
  vcpus: "2"
  machine: q 36
  traffic: sparce
  cmdline: "foo\\nbar"
workload:
  kind: freed
  nois: 1500MiB
  keep: -3MiB
migration: 5
strict: yes
seed: -1
expect:
  skipped_percent_min: 101
"""
    found = errors(tmp_path, text)
    assert [line.split(": ")[0] for line in found] == [
        f"my.yaml:{line}:{column}"
        for line, column in [
            (1, 1), (2, 1), (3, 1), (4, 1), (6, 3), (7, 3), (8, 3), (9, 3), (10, 3), (13, 3),
            (14, 3), (15, 1), (16, 1), (17, 1), (19, 3),
        ]
    ]  # fmt: skip
    for line, words in zip(
        found,
        [
            "name: expected small letters, digits and dashes",
            "sumary: unknown key; did you mean 'summary'? the keys here are name, summary",
            "arm: expected 'off', 'hint' or 'info', got 'of'; did you mean 'off'?",
            "memory: unknown key; did you mean 'guest.memory'?",
            "guest.memory: expected a size such as '2GiB', got '2GB', which has the unknown unit 'GB'; "
            "did you mean '2GiB'?",
            "guest.vcpus: expected a whole number, got '2'",
            "guest.machine: expected a machine type such as pc-q35-7.2, got 'q 36'",
            "guest.traffic: expected false, true or 'sparse', got 'sparce'; did you mean 'sparse'?",
            "guest.cmdline: expected letters",
            "workload.nois: unknown key; did you mean 'noise'? the keys of workload 'freed' here are kind",
            "workload.keep: expected a size such as '2GiB', got '-3MiB', which is negative",
            "migration: expected keys of its own, got 5",
            "strict: expected true or false, got 'yes'",
            "seed: expected at least 0, got -1",
            "expect.skipped_percent_min: expected at most 100.0, got 101",
        ],
        strict=True,
    ):
        assert words in line


def test_a_key_that_is_like_none_is_answered_without_a_guess(tmp_path: Path) -> None:
    (line,) = errors(tmp_path, "name: a\nguest:\n  iommu: intel\n")
    assert line.startswith("my.yaml:3:3: guest.iommu: unknown key; the keys here are memory, ")
    assert line.endswith("what no key says goes by xml, qemu_args or globals (docs/machine.md)")
    (line,) = errors(tmp_path, "name: a\nguest:\n  generation-id: x\n")
    assert "did you mean 'generation_id'?" in line


def test_what_is_found_to_be_wrong_later_has_its_place_too(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("name: a\nguest:\n  cpu: EPYC,+svm\n")
    scenario = load_scenario(str(file), ["guest.machine=q35"])
    assert str(scenario.wrong("guest.cpu", "no")) == f"{file}:3:3: guest.cpu: no"
    # Changed by the command line; and one that nobody wrote.
    assert str(scenario.wrong("guest.machine", "no")) == "--set guest.machine=q35: guest.machine: no"
    assert str(scenario.wrong("moves.0.ends", "no")) == f"{file}:1:1: moves[0].ends: no"
    copy = scenario.model_copy(update={"arm": "off"})
    assert str(copy.wrong("guest.cpu", "no")) == f"{file}:3:3: guest.cpu: no"
    assert str(Scenario(name="a").wrong("guest.cpu", "no")) == "guest.cpu: no"
    # Where it stands is no part of what it says.
    assert scenario == Scenario.model_validate(scenario.model_dump())


@pytest.mark.parametrize("cpu", ["Skylake-Client", "EPYC,+svm,-xsave", "host", "qemu64,+sse4.1,phys-bits=46"])
def test_a_cpu_is_written_as_in_a_bug_report(cpu: str) -> None:
    assert Scenario.model_validate({"name": "a", "guest": {"cpu": cpu}}).guest.cpu == cpu


@pytest.mark.parametrize(
    "cpu", ["", "EPYC svm", "EPYC,,svm", ",EPYC", "-cpu", "EPYC,+svm,", "x" * 3000, "a;b"]
)
def test_a_cpu_is_one_word(cpu: str, tmp_path: Path) -> None:
    (line,) = errors(tmp_path, f"name: a\nguest: {{cpu: '{cpu}'}}\n")
    assert "guest.cpu: expected a model and features, such as EPYC,+svm,-xsave" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n- b\n", "my.yaml:1:1: expected a mapping of keys at the top level"),
        ("name: a\nname: b\n", "my.yaml:2:1: name: duplicate key (first in line 1)"),
        ("name: a\nguest:\n  vcpus: 1\n  vcpus: 2\n", "my.yaml:4:3: guest.vcpus: duplicate key"),
        ("name: a\n  guest: b\n", "my.yaml:2:8: not valid YAML"),
        ("name: [a\n", "not valid YAML"),
        ("name: a\nguest: &g {vcpus: 1}\nworkload: *g\n", "my.yaml:3:11: aliases (*name) are not supported"),
        ("name: a\n--- \nname: b\n", "not valid YAML"),
        ("name: !!python/name:os.system\n", "my.yaml:1:7: tags are not supported"),
        ("name: a\n? [x, y]\n: 1\n", "expected a key, which is one word"),
        ("name: a\n\tguest: 1\n", "not valid YAML"),
        ("name: \x00\n", "not valid YAML"),
        ("name: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("summary: x\n", "name: missing; expected a name"),
        ("name: a\nguest:\n", "my.yaml:2:1: guest: expected keys of its own, got None"),
        ("name: a\nworkload: {kind: fred}\n", "workload.kind: expected 'idle', 'freed', "),
        ("name: a\nworkload: {noise: 5MiB}\n", "workload.kind: expected"),
        ("name: a\nworkload: {kind: idle, noise: 5MiB}\n", "workload.noise: unknown key"),
        ("name: a\nworkload: {kind: freed, noise: 1500}\n", "has no unit; did you mean '1500MiB'?"),
        ("name: a\nguest: {memory: 1000}\n", "has no unit; did you mean '1000MiB'?"),
        ("name: a\nguest: {memory: 64MiB}\n", "expected at least 128MiB and whole MiB, got '64MiB'"),
        ("name: a\nguest: {memory: 1048577KiB}\n", "whole MiB"),
        ("name: a\nguest: {memory: true}\n", "expected a size such as '2GiB', got True"),
        ("name: a\nmigration: {bandwidth: 5MiB}\n", "migration.bandwidth: expected a rate such as '32MiB/s'"),
        ("name: a\nguest: {kernel: ''}\n", "guest.kernel: expected text, got nothing"),
        ("name: a\nguest: {cmdline: console=ttyS1}\n", "'console=ttyS1' is set by the testbed itself"),
        ("name: a\nguest: {cmdline: a -- b}\n", "'--' is set by the testbed itself"),
        ("name: a\nguest: {cmdline: 'a=\"b'}\n", "every quotation mark"),
        ("name: a\nguest: {cmdline: 'a;$b'}\n", "got '$'"),
        ("name: a\nguest: {cmdline: [a]}\n", "guest.cmdline: expected text, got ['a']"),
        (f"name: a\nguest: {{cmdline: {'a' * 1025}}}\n", "at most 1024"),
        ("name: a\nseed: 9223372036854775808\n", "seed: expected less than 9223372036854775808"),
        ("name: a\nseed: 1.5\n", "seed: expected a whole number, got 1.5"),
        ("name: a\nexpect: {skipped_percent_min: x}\n", "expected a number, got 'x'"),
        ("name: a\nexpect: {sent_over_floor_max: 0}\n", "expected more than 0"),
        (
            "name: a\nexpect: {skipped_percent_min: 9, skipped_percent_max: 8}\n",
            "expect.skipped_percent_min: expected at most skipped_percent_max",
        ),
        ("name: a\nguest: {memory: 512MiB}\nworkload: {kind: freed, noise: 512MiB}\n",
         "my.yaml:3:25: workload.noise: 512MiB does not fit into a guest of 512MiB"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, text: str, words: str) -> None:
    (found,) = errors(tmp_path, text)
    assert words in found
    assert found.startswith("my.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guest.memory=2GB", "--set guest.memory=2GB: guest.memory: expected a size"),
        ("guest.memori=2GiB", "--set guest.memori=2GiB: guest.memori: unknown key; did you mean 'memory'?"),
        ("a.b.c=1", "--set a.b.c=1: a: unknown key"),
        ("guest.memory.x=1", "--set guest.memory.x=1: guest.memory.x: 'memory' has a value"),
        ("guest=1", "--set guest=1: guest: expected keys of its own"),
        ("nonsense", "--set nonsense: expected key=value"),
        ("=5", "--set =5: expected key=value"),
        ("guest.=5", "--set guest.=5: expected key=value"),
        ("workload.noise=1GiB", "--set workload.noise=1GiB: workload.noise: 1GiB does not fit"),
    ],
)
def test_an_override_that_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario("freed", [override])
    assert caught.value.message.startswith(message)


def test_a_short_option_is_named_as_the_user_wrote_it() -> None:
    override = Override.parse("guest.memory=2GB", shown="--memory 2GB")
    with pytest.raises(InputError, match=r"^--memory 2GB: guest.memory: expected a size"):
        load_scenario("freed", [override])


def test_an_override_does_not_hide_the_mistakes_of_the_file(tmp_path: Path) -> None:
    found = errors(tmp_path, "name: a\narm: of\nseed: x\n", "seed=y")
    assert found[0].startswith("--set seed=y: seed:")
    assert found[1].startswith("my.yaml:2:1: arm:")


def test_unknown_scenarios_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such scenario: 'fred'") as caught:
        load_scenario("fred")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean 'freed'? there are ")
    with pytest.raises(InputError, match="No such file or directory"):
        load_scenario(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="is a folder, and not a scenario"):
        load_scenario(str(tmp_path) + "/")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_scenario(str(tmp_path / "binary.yaml"))
    (tmp_path / "large.yaml").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(InputError, match="larger than 1MiB"):
        load_scenario(str(tmp_path / "large.yaml"))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, "name: mine\nworkload:\n  kind: freed\n  noise: 12.5 %\n"))
    assert isinstance(scenario.workload, Freed)
    assert scenario.workload.noise == Percent(Decimal("12.5"))
    assert noise_bytes(scenario) == GIB // 8


def test_everything_is_frozen() -> None:
    scenario = load_scenario("idle")
    with pytest.raises(ValidationError, match="frozen"):
        scenario.arm = "off"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        scenario.guest.memory = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_scenario_replays(name: str, tmp_path: Path) -> None:
    resolved = resolve(load_scenario(name), BIG)
    assert resolved.scenario.seed == resolved.seed
    assert 0 <= resolved.seed < 2**63
    assert resolved.scenario.accelerator == resolved.accelerator == "tcg"
    again = load_scenario(write(tmp_path, resolved.scenario.to_yaml()))
    assert again == resolved.scenario
    assert resolve(again, BIG) == resolved


def test_seeds_are_drawn_or_kept() -> None:
    idle = load_scenario("idle")
    assert resolve(idle, BIG).seed != resolve(idle, BIG).seed
    assert resolve(load_scenario("idle", ["seed=0"]), BIG).seed == 0


def test_what_the_guest_is_told() -> None:
    def words(*overrides: str) -> tuple[str, ...]:
        return resolve(load_scenario(overrides[0], ["seed=7", *overrides[1:]]), BIG).load_words()

    noise = str(noise_bytes(load_scenario("freed")))
    assert words("idle") == ("idle", "7", "0")
    assert words("idle", "workload.keep=1MiB") == ("idle", "7", "0", "keep=1048576")
    assert words("freed") == ("freed", "7", noise, "keep=16777216")
    assert words("fragmented") == ("fragmented", "7", noise)
    assert words("churn", "workload.noise=4MiB") == ("churn", "7", "4194304", "rate=4000")


def test_memory_must_be_there_twice() -> None:
    scenario = load_scenario("idle", ["guest.memory=2GiB"])
    assert resolve(scenario, MachineFacts(memory_available=4 * GIB + 512 * MIB)).noise_bytes == 0
    with pytest.raises(InputError, match="need 4608 MiB, of which 4607 MiB are available") as caught:
        resolve(scenario, MachineFacts(memory_available=4 * GIB + 511 * MIB))
    assert caught.value.hint == "at most --memory 1984MiB fits now"
    with pytest.raises(InputError) as caught:
        resolve(scenario, MachineFacts(memory_available=100 * MIB))
    assert caught.value.hint is None


def test_accelerators() -> None:
    usable = MachineFacts(memory_available=64 * GIB, kvm_usable=True)
    unusable = MachineFacts(memory_available=64 * GIB, kvm_reason="no /dev/kvm")
    auto, kvm, tcg = (load_scenario("idle", [f"accelerator={word}"]) for word in ("auto", "kvm", "tcg"))
    assert [resolve(auto, facts).accelerator for facts in (usable, unusable)] == ["kvm", "tcg"]
    assert resolve(kvm, usable).accelerator == "kvm"
    assert resolve(tcg, usable).accelerator == "tcg"
    with pytest.raises(InputError, match="accelerator: kvm cannot be used here: no /dev/kvm"):
        resolve(kvm, unusable)


def test_schema_describes_every_key() -> None:
    schema = scenario_schema()
    json.dumps(schema)
    described = 0
    for part in (schema, *schema["$defs"].values()):  # type: ignore[attr-defined]
        assert part["additionalProperties"] is False
        for key, value in part["properties"].items():
            # Where its type is described in the same words, pydantic leaves them out here.
            assert value.get("description") or "$ref" in value, key
            described += 1
    assert described > 30
    guest = schema["$defs"]["Guest"]["properties"]  # type: ignore[index]
    assert guest["memory"]["default"] == "1GiB"
    assert schema["properties"]["workload"]["default"] == {"kind": "idle", "keep": None}  # type: ignore[index]


def test_docs_name_every_key(repository: Path) -> None:
    text = (repository / "docs" / "scenario.md").read_text(encoding="utf-8")
    schema = scenario_schema()
    for part in (schema, *schema["$defs"].values()):  # type: ignore[attr-defined]
        for key in part["properties"]:
            assert f"`{key}`" in text, key


@given(st.text(max_size=80))
@settings(max_examples=300)
def test_no_file_and_no_override_ends_in_anything_else(text: str) -> None:
    with contextlib.suppress(LocatedError):
        parse_yaml(text, "x")
    try:
        scenario = load_scenario("freed", [text])
    except InputError:
        return
    assert isinstance(scenario, Scenario)


def test_a_list_behind_set_is_yaml() -> None:
    settings = ["moves=[{ends: cancelled}, {}]", 'guest.cmdline="[a] b"', "expect={verdict: fail}"]
    scenario = load_scenario("idle", settings)
    assert [move.ends for move in scenario.moves] == ["cancelled", "completed"]
    assert scenario.guest.cmdline == "[a] b"
    assert scenario.expect.verdict == "fail"


@pytest.mark.parametrize(
    "text", ["moves=[{", "moves=[*a]", "moves=[!!python/name:os.system 1]", "moves=[] []"]
)
def test_what_is_no_yaml_behind_set_is_said(text: str) -> None:
    with pytest.raises(InputError, match="--set moves"):
        load_scenario("idle", [text])
