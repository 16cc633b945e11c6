# SPDX-License-Identifier: GPL-2.0-or-later
"""The hunt without a guest: what is drawn, how it is made smaller, what a run's end means, what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from harness.errors import ExitCode, InputError
from harness.hunt import conduct, drawing, episodes, language
from harness.hunt.coverage import Coverage, feature_keys, features, keys_drawn
from harness.hunt.drawing import Drawn, DrawSpace
from harness.hunt.ending import RunEnding, judge_ending, plain
from harness.hunt.episodes import Episode, Leg
from harness.hunt.folder import HuntFolder
from harness.hunt.hunter import BATCH, RUN_OF_BATCH, Hunt, HuntReport, batch_seed
from harness.hunt.known import described_failures, explanation, found_failure
from harness.hunt.parts import needed_parts, without_each
from harness.hunt.refusals import Refusals
from harness.hunt.running import RunDone, TimeIsUp
from harness.scenario.actions.base import ACTIONS
from harness.scenario.load import load_scenario

SPACE: Final = DrawSpace()
#: Quickly drawn.
SMALL: Final = DrawSpace(only=("migration.multifd", "migration.xbzrle", "guest.vcpus", "workload"))
#: Scenarios of a batch, of which eight are run.
QUICK: Final = 12


# What is drawn.


def test_what_is_named_is_a_key_of_the_language() -> None:
    keys = {key.key for key in language.setting_keys()} | set(language.not_drawn())
    of_kinds = ("workload.", "script.", "guest.devices.")
    assert {key for key in language.SMALL_VALUES if not key.startswith(of_kinds)} <= keys
    assert set(language.LEFT_OUT) <= keys


def test_what_is_not_drawn_has_a_reason() -> None:
    assert all(language.not_drawn().values())
    assert set(episodes.NOT_DRAWN_ALONE) <= set(ACTIONS)


def test_one_seed_draws_the_same_scenarios_and_another_one_others() -> None:
    first = [one.identity for one in drawing.draw(SPACE, 7, 12)]
    assert first == [one.identity for one in drawing.draw(SPACE, 7, 12)]
    assert first != [one.identity for one in drawing.draw(SPACE, 8, 12)]


def test_what_is_drawn_is_a_scenario_that_loads(tmp_path: Path) -> None:
    for number, one in enumerate(drawing.draw(SPACE, 3, 12)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"name": "drawn", **one.tree}), encoding="utf-8")
        scenario = load_scenario(str(path))
        assert scenario.guest.memory <= 384 << 20
        assert scenario.remote is None


def test_only_the_named_keys_are_drawn() -> None:
    space = DrawSpace(only=("migration.multifd", "guest.vcpus"))
    found = {key for one in drawing.draw(space, 1, 40) for key in feature_keys(features(one.tree))}
    assert found <= {"arm=info", "guest.memory", "migration.multifd", "guest.vcpus"}
    assert {"migration.multifd", "guest.vcpus"} <= found


def test_arms_are_those_of_the_space() -> None:
    found = {one.tree["arm"] for one in drawing.draw(DrawSpace(arms=("off", "hint")), 2, 40)}
    assert found <= {"off", "hint"}


def test_what_needs_pci_express_has_a_machine_with_it() -> None:
    seen = 0
    for one in drawing.draw(DrawSpace(only=("guest.devices", "guest.machine")), 5, 60):
        guest = one.tree["guest"]
        if any(device["device"] in ("iommu", "root-port") for device in guest.get("devices", ())):
            seen += 1
            assert guest["machine"] == "q35"
    assert seen


def test_a_reason_for_a_refusal_is_in_what_was_refused_in_the_same_words() -> None:
    always = {"guest.memory=192MiB", "arm=off"}

    def having(*more: str) -> frozenset[str]:
        return frozenset({*always, *more})

    known = Refusals()
    known.refused("no vsock", having("device=vsock", "guest.vcpus=2"))
    assert known.explain(having("device=vsock", "guest.vcpus=2", "kind=freed"))
    assert not known.explain(having("device=vsock"))
    known.refused("no vsock", having("device=vsock", "kind=freed"))
    assert known.explain(having("device=vsock"))
    assert not known.explain(having("device=rng"))
    # Of others nothing is learnt: what they have in common every scenario has.
    known.refused("it does not fit", having("guest.vcpus=2"))
    known.refused("it does not fit", having("guest.vcpus=3"))
    assert not known.explain(having("device=rng"))
    # What was taken with it is no reason.
    known.taken(having("device=vsock", "device=rng"))
    assert not known.explain(having("device=vsock"))
    assert known.explain(having("device=vsock", "guest.vcpus=2"))


def test_a_leg_that_is_ended_has_what_is_over_by_then() -> None:
    hold = Episode(
        (
            {"at": "start", "do": [{"action": "module-hold", "point": "before-walk"}]},
            {"at": "before-walk", "do": [{"action": "module-unhold"}]},
        )
    )
    early, late = (Leg("cancelled", (hold,), ended_at=moment) for moment in ("request", "answer"))
    cancel = {"action": "cancel"}
    assert episodes.script_of([early, Leg("completed")]) == [{"at": "request", "do": [cancel]}]
    assert episodes.script_of([late]) == [*hold.entries, {"at": "answer", "do": [cancel]}]


def test_a_moment_that_comes_once_has_one_entry() -> None:
    """A second one would wait for ever, and the run would be inconclusive."""
    twice = [Episode((episodes.entry(at, [{"action": "qmp-answers"}]),)) for at in ("start", "start", "pass")]
    more = Episode((episodes.entry("pass", [{"action": "bandwidth", "limit": "16MiB/s"}]),))
    script = episodes.script_of([Leg("cancelled", (*twice, more), "pass")])
    assert [one["at"] for one in script] == ["start", "pass", "pass", "pass"]
    assert [action["action"] for action in script[0]["do"]] == ["qmp-answers", "qmp-answers"]
    ended = episodes.script_of([Leg("cancelled", (), "active"), Leg("completed", tuple(twice))])
    assert [one.get("move", 1) for one in ended] == [1, 2, 2]


@pytest.mark.parametrize("arm", ["off", "hint", "info"])
def test_postcopy_is_drawn_in_every_arm(arm: str) -> None:
    space = DrawSpace(arms=(arm,), only=("script", "workload"))
    found = [one.tree for one in drawing.draw(space, 5, 60) if "postcopy-start" in one.identity]
    assert found
    moments = {one["at"] for tree in found for one in tree["script"] if "postcopy-start" in str(one["do"])}
    assert moments <= ({"pass", "applied"} if arm == "info" else {"pass"})


def test_a_key_that_cannot_be_alone_comes_in_company() -> None:
    companions = drawing.companions()
    assert companions.of("migration.multifd", 2) == ()
    assert companions.of("migration.mapped_ram", True) == ({"migration.to": "file"},)
    assert companions.of("migration.file.compression", "xz") == ({"migration.to": "save"},)
    assert {"migration.to": "savevm"} in companions.of("migration.file.used_memory", True)
    assert companions.of("guest.nodes", 3) == ({"guest.vcpus": 3},)
    assert companions.of("migration.parameters", {"multifd-compression": "zstd"}) == (
        {"migration.multifd": 2},
    )
    assert companions.of("migration.parameters", {"announce-rounds": 1}) == ()


def test_every_key_can_be_drawn() -> None:
    """With its company at least one value of each key makes a scenario."""
    companions = drawing.companions()
    alone = {"arm": "off", "guest": {"memory": drawing.DRAWN_MEMORY}}
    never = []
    for key in language.setting_keys():
        trees = []
        for value in key.values:
            for company in companions.of(key.key, value) or ({},):
                tree = json.loads(json.dumps(alone))
                for other, its_value in {**company, key.key: value}.items():
                    drawing.put(tree, other, its_value)
                trees.append(tree)
        if not any(drawing.valid(tree) for tree in trees):
            never.append(key.key)
    assert never == []


def test_moments_are_in_their_order() -> None:
    assert episodes.moments_for("qmp-answers", "info") == (
        *("start", "active", "request", "answer", "applied", "pass", "pre-switchover"),
    )
    # Nothing is wanted of a guest in the middle of its switch-over, and a vCPU is plugged before all.
    assert "pre-switchover" not in episodes.moments_for("pages-alloc", "off")
    assert episodes.moments_for("vcpu-add", "info") == ("start",)


def wanted(one: Drawn) -> bool:
    return "workload" in one.tree and one.tree["workload"]["kind"] == "churn" and "multifd" in one.identity


def drawn_with(holds: Callable[[Drawn], bool]) -> tuple[int, Drawn]:
    for number in range(20):
        for one in drawing.draw(SMALL, number, BATCH):
            if holds(one):
                return number, one
    raise AssertionError("no such scenario is drawn")


def test_a_failure_is_made_as_small_as_it_can_be() -> None:
    number, target = drawn_with(wanted)
    small = drawing.shrink(SMALL, number, BATCH, target, wanted)
    tree = needed_parts(small.tree, lambda tree: wanted(Drawn(tree)), drawing.valid)
    memory = {"memory": drawing.DRAWN_MEMORY}
    assert tree == {"guest": memory, "migration": {"multifd": 2}, "workload": {"kind": "churn"}}


def test_shrinking_is_ended_by_an_interrupt() -> None:
    number, target = drawn_with(wanted)

    def fails(one: Drawn) -> bool:
        if one == target:
            return True
        raise TimeIsUp

    with pytest.raises(TimeIsUp):
        drawing.shrink(SMALL, number, BATCH, target, fails)


def test_each_part_is_taken_away() -> None:
    tree = {
        "guest": {"vcpus": 2},
        "script": [{"at": "active", "do": [{"action": "stop"}, {"action": "cont"}]}],
        "moves": [{"ends": "cancelled"}, {}],
    }
    less = list(without_each(tree))
    assert {"script": tree["script"], "moves": tree["moves"]} in less
    assert {**tree, "script": [{"at": "active", "do": [{"action": "cont"}]}]} in less
    assert {**tree, "moves": [{}, {}]} in less
    assert tree["guest"] == {"vcpus": 2}, "what is given is left alone"


# Coverage.


def test_a_scenario_that_has_met_counts_less() -> None:
    coverage = Coverage()
    one, other = ({"guest": {"vcpus": 2}, "migration": {key: True}} for key in ("xbzrle", "tls"))
    before = coverage.rarity(one)
    coverage.add(one)
    assert coverage.rarity(one) < before
    assert coverage.rarity(other) == before


def test_the_report_counts_pairs_of_keys() -> None:
    coverage = Coverage()
    coverage.add({"arm": "off", "workload": {"kind": "churn"}, "guest": {"vcpus": 2}})
    drawn = {"arm=off", "arm=hint", "kind=churn", "guest.vcpus", "guest.dimm"}
    report = coverage.report(drawn)
    # Two arms are never in one run.
    assert (report.keys, report.keys_met, report.pairs, report.pairs_met) == (5, 3, 9, 3)
    assert report.never == ("arm=hint", "guest.dimm")


def test_a_key_with_names_below_it_is_met_whole() -> None:
    coverage = Coverage()
    coverage.add({"migration": {"parameters": {"announce-rounds": 1}}, "guest": {"topology": {"cores": 2}}})
    keys = ("migration.parameters", "guest.topology", "migration.capabilities")
    report = coverage.report(keys)
    assert (report.never, report.pairs_met) == (("migration.capabilities",), 1)


def test_kinds_are_keys_of_their_own() -> None:
    keys = keys_drawn(SPACE.arms, SPACE.allows)
    assert {"kind=churn", "action=stop", "arm=info", "guest.vcpus", "device=generation-id"} <= keys


# What a run's end means.


@pytest.mark.parametrize(
    ("status", "said", "error", "word"),
    [
        (ExitCode.INPUT, "hunt.yaml:3:4: guest.cpu: no such model", "", "refused"),
        (
            ExitCode.INPUT,
            "guest.memory: 1GiB does not fit: source and destination together need 2560 MiB",
            "",
            "cut",
        ),
        (ExitCode.ERROR, "the guest was lost", "GuestLost", "failed"),
        (
            ExitCode.ERROR,
            "the migration: not within 20 s",
            "OutOfTimeError",
            "inconclusive",
        ),
        (ExitCode.ERROR, "the agent refused", "MachineryError", "error"),
        (
            ExitCode.ERROR,
            "the guest cannot load rewrite 2020 60395520 rate=20000: this needs 60395520 bytes and a margin",
            "AgentError",
            "refused",
        ),
        (
            ExitCode.ERROR,
            "the source cannot start the guest: internal error: process exited while connecting to monitor: "
            "2026-11-30T07:29Z qemu-system-x86_64: -device vmgenid: at most one is permitted",
            "GuestLost",
            "refused",
        ),
    ],
)
def test_an_end_without_a_verdict(status: int, said: str, error: str, word: str) -> None:
    assert judge_ending(status, None, said, error).word == word


def test_the_same_failure_has_the_same_signature() -> None:
    first = judge_ending(3, None, "the guest of /tmp/a/1 was lost after 12.5 s at 0xffff", "GuestLost")
    other = judge_ending(3, None, "the guest of /tmp/b/2 was lost after 3 s at 0x1234", "GuestLost")
    assert first.signature == other.signature
    assert first.signature != judge_ending(3, None, "the guest panicked", "GuestLost").signature


def test_crashes_are_told_apart_by_their_stacks() -> None:
    one, other = (
        judge_ending(3, None, "the source's QEMU ended by SIGSEGV", "HostLost", stack)
        for stack in (("ram_load", "main"), ("multifd_recv", "main"))
    )
    assert one.word == "failed"
    assert one.signature != other.signature


def test_plain_words_have_no_numbers_and_paths() -> None:
    assert plain("x.yaml:3:1: /a/b: page 0x7f has 12 of 30\nmore") == "PATH: page N has N of N"


# The hunt, with runs that are a function of the scenario.


class FakeRuns:
    """Ends by ``end`` of the scenario; after ``most`` runs time is up."""

    def __init__(self, folder: HuntFolder, end: Callable[[dict[str, Any]], RunEnding], most: int) -> None:
        self._folder = folder
        self._end = end
        self._left = most
        self.ran: list[str] = []

    def run(self, drawn: Drawn, seed: int) -> RunDone:  # noqa: ARG002
        if not self._left:
            raise TimeIsUp
        self._left -= 1
        self.ran.append(drawn.identity)
        return RunDone(self._end(drawn.tree), 1.0, self._folder.new_run())

    def drop(self, done: RunDone) -> None:
        if done.folder.exists():
            done.folder.rmdir()

    def end_all(self) -> None:
        self._left = 0


def hunted(
    path: Path, end: Callable[[dict[str, Any]], RunEnding], most: int, seed: int = 1
) -> tuple[HuntReport, FakeRuns]:
    folder = HuntFolder(path)
    runs = FakeRuns(folder, end, most)
    return Hunt(folder, SMALL, runs, "a QEMU", seed=seed, batch=QUICK).go(), runs


def with_multifd(tree: dict[str, Any]) -> RunEnding:
    if "multifd" in tree.get("migration", {}):
        return RunEnding("failed", "differs-not-skipped/pc.ram", "3 pages differ", certain=True)
    return RunEnding("right")


def test_a_failure_is_found_made_small_and_kept_once(tmp_path: Path) -> None:
    report, _ = hunted(tmp_path / "hunt", with_multifd, 60)
    assert len(report.found) == 1
    found = report.found[0]
    assert found.smallest
    assert conduct.status_of(report) == ExitCode.FAIL
    kept = yaml.safe_load(Path(found.file).read_text("utf-8"))
    assert kept["migration"] == {"multifd": 2}
    assert set(kept) == {"name", "summary", "guest", "migration", "seed"}
    assert kept["guest"] == {"memory": drawing.DRAWN_MEMORY}
    load_scenario(found.file)
    # What came after it was known.
    assert list(report.known) == [found.file]
    assert Path(found.file).with_suffix("").is_dir()


def test_the_first_failure_may_end_it(tmp_path: Path) -> None:
    folder = HuntFolder(tmp_path / "hunt")
    runs = FakeRuns(folder, with_multifd, 60)
    report = Hunt(folder, SMALL, runs, "a QEMU", batch=QUICK, seed=1, until_found=True).go()
    assert report.ended == "something was found"
    assert len(report.found) == 1


def test_several_runs_at_a_time_find_it_as_well(tmp_path: Path) -> None:
    folder = HuntFolder(tmp_path / "hunt")
    runs = FakeRuns(folder, with_multifd, 60)
    report = Hunt(folder, SMALL, runs, "a QEMU", batch=QUICK, seed=1, jobs=3).go()
    assert [one.signature for one in report.found] == ["differs-not-skipped/pc.ram"]


def test_what_came_as_time_was_up_is_kept(tmp_path: Path) -> None:
    folder = HuntFolder(tmp_path / "hunt")
    always = RunEnding("failed", "stuck", "nothing moved", certain=True)
    report = Hunt(
        folder, SMALL, FakeRuns(folder, lambda _: always, 3), "a QEMU", batch=QUICK, seed=1, jobs=1
    ).go()
    assert [one.smallest for one in report.found] == [False]
    other = HuntFolder(tmp_path / "other")
    report = Hunt(
        other, SMALL, FakeRuns(other, lambda _: always, 3), "a QEMU", batch=QUICK, seed=1, jobs=2
    ).go()
    assert {one.repeats for one in report.found} == {"once, and time was up"}


def test_what_was_found_is_known_to_the_next_hunt(tmp_path: Path) -> None:
    hunted(tmp_path / "hunt", with_multifd, 60)
    again, _ = hunted(tmp_path / "hunt", with_multifd, 16, seed=2)
    assert not again.found
    assert conduct.status_of(again) == ExitCode.PASS


def test_the_same_seed_runs_the_same_scenarios(tmp_path: Path) -> None:
    sequences = [
        hunted(tmp_path / name, lambda _: RunEnding("right"), 2 * RUN_OF_BATCH)[1].ran for name in ("a", "b")
    ]
    assert sequences[0] == sequences[1]
    assert len(set(sequences[0])) == 2 * RUN_OF_BATCH
    assert batch_seed(1, 0) != batch_seed(0, 1)


def test_what_was_refused_is_not_drawn_again(tmp_path: Path) -> None:
    def refuse(tree: dict[str, Any]) -> RunEnding:
        kind = tree.get("workload", {}).get("kind")
        return RunEnding("refused", "no churn", "no churn") if kind == "churn" else RunEnding("right")

    report, runs = hunted(tmp_path / "hunt", refuse, 16)
    assert not report.found
    assert conduct.status_of(report) == ExitCode.PASS
    refused = [features(json.loads(one)) for one in runs.ran if '"churn"' in one]
    for at, one in enumerate(refused):
        assert not any(earlier <= one for earlier in refused[:at])


def test_inconclusive_runs_are_no_failures(tmp_path: Path) -> None:
    report, _ = hunted(tmp_path / "hunt", lambda _: RunEnding("inconclusive", text="not exercised"), 10)
    assert (report.runs, report.words, report.found) == (10, {"inconclusive": 10}, ())
    assert report.ended == "time is up"


def test_errors_in_a_row_end_the_hunt(tmp_path: Path) -> None:
    report, _ = hunted(tmp_path / "hunt", lambda _: RunEnding("error", "no space", "no space"), 10)
    assert report.broken
    assert conduct.status_of(report) == ExitCode.ERROR


def test_a_failure_that_does_not_repeat_is_kept_as_it_came(tmp_path: Path) -> None:
    ends = iter([RunEnding("failed", "GuestLost/the guest was lost", "the guest was lost")])
    report, _ = hunted(tmp_path / "hunt", lambda _: next(ends, RunEnding("right")), 10)
    assert not report.found
    assert [one.repeats for one in report.once] == ["1 of 2"]
    assert conduct.status_of(report) == ExitCode.PASS


def test_time_that_is_up_leaves_what_was_found(tmp_path: Path) -> None:
    ends = iter([RunEnding("failed", "differs/pc.ram", "3 pages differ", certain=True)] * 2)
    report, _ = hunted(tmp_path / "hunt", lambda _: next(ends, RunEnding("right")), 2)
    assert [one.smallest for one in report.found] == [False]


def test_an_interrupt_leaves_a_report(tmp_path: Path) -> None:
    def interrupt(_: dict[str, Any]) -> RunEnding:
        raise KeyboardInterrupt

    report, _ = hunted(tmp_path / "hunt", interrupt, 10)
    assert report.ended == "interrupted"


@pytest.mark.parametrize("repeats", [1, 2])
def test_an_interrupt_leaves_what_has_failed_by_then(tmp_path: Path, repeats: int) -> None:
    """Before it has repeated, and while it is made smaller."""
    ends = iter([RunEnding("failed", "differs/pc.ram", "3 pages differ", certain=True)] * repeats)

    def interrupted_then(_: dict[str, Any]) -> RunEnding:
        found = next(ends, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    report, _ = hunted(tmp_path / "hunt", interrupted_then, 10)
    assert report.ended == "interrupted"
    [found] = report.found
    assert (found.signature, found.smallest) == ("differs/pc.ram", False)
    assert Path(found.file).exists()


# What is wrong is said before anything is built.


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    place = HuntFolder(tmp_path / "hunt").path / "hunt.json"
    HuntFolder(tmp_path / "hunt")
    place.write_text(re.sub('"format": [0-9]+', '"format": 0', place.read_text("utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match="another version"):
        HuntFolder(tmp_path / "hunt")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="no hunt's folder"):
        HuntFolder(tmp_path)


@pytest.mark.parametrize(
    ("key", "words"),
    [("guest.vcpu", "no such key"), ("guest.kernel", "it is not drawn"), ("nonsense", "no such key")],
)
def test_a_key_that_is_not_drawn_is_refused(key: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        conduct.demand_keys([key])


@pytest.mark.parametrize("key", ["migration", "guest", "guest.vcpus", "script", "workload", "guest.devices"])
def test_keys_and_sections_are_taken(key: str) -> None:
    conduct.demand_keys([key])


# What is known.


def test_a_known_failure_has_what_it_needs() -> None:
    known = found_failure({"migration": {"multifd": 2}}, "differs/pc.ram", "docs/found.md")
    assert known.explains({"migration": {"multifd": 5}, "guest": {"vcpus": 2}}, "differs/pc.ram")
    assert not known.explains({"migration": {"xbzrle": True}}, "differs/pc.ram")
    assert not known.explains({"migration": {"multifd": 5}}, "stuck")


LOST = "differs-not-skipped/0000:00:04.0/memua-freepage-virtio-mem"


@pytest.mark.parametrize(
    ("patched", "accelerator", "signature", "known"),
    [
        (False, "tcg", LOST, True),
        (False, "tcg", LOST.replace("not-skipped", "though-sent"), True),
        # Each of these is another failure.
        (True, "tcg", LOST, False),
        (False, "kvm", LOST, False),
        (False, "tcg", "differs-not-skipped/ram-node0", False),
    ],
)
def test_writes_that_are_lost_in_virtio_mem(
    patched: bool, accelerator: str, signature: str, known: bool
) -> None:
    tree = {"guest": {"virtio_mem": {"size": "128MiB", "plugged": "64MiB"}}}
    failures = described_failures(patched=patched)
    assert (explanation(failures, tree, signature, accelerator) is not None) == known


def test_what_is_described_is_described_somewhere() -> None:
    root = Path(__file__).parents[2]
    for known in described_failures(patched=False):
        name, _, title = known.where.partition(": ")
        text = (root / name).read_text("utf-8")
        assert title.lower() in text.lower(), known.where
