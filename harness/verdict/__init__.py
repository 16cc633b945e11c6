# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge and its rules.  Pure: no input, no output, no clock.

What goes in: a :class:`~harness.verdict.case.JudgeInput`, which holds what is known when
both sides stand still, and *facts*, which become known later.  A fact is an instance of
any frozen dataclass; the judge keeps one of each class, and does not know what it means.
What comes out: a :class:`~harness.verdict.judge.Judgement`.

To add a rule, write one module in ``harness/verdict/rules/``, and name it in that package's
``__init__``.  To add what a rule reads, write a dataclass beside it, and give an instance to
``MemoryJudgement.complete()`` where the run knows it (``harness/run/result.py``)::

    @dataclass(frozen=True, slots=True)
    class QemuStatus:
        source: str
        destination: str

    @rule("record", {"both-run": "both QEMUs say that they run the guest"}, needs=(QemuStatus,))
    def both_run(case: JudgeInput, context: Context) -> Iterator[Finding]:
        status = context.fact(QemuStatus)
        if status.source == status.destination == "running":
            yield Finding("both-run", "record", "both QEMUs say that they run the guest")

A rule without its facts is not asked, so runs without them go on as before.  A rule may
yield an ``Observation`` as well: something that is counted and harmless.  ``@page_rule`` is
for what a wrong page breaks, ``@block_rule`` for what is asked of each compared block,
``@doubt`` for a reason to be inconclusive; :mod:`harness.verdict.registry` has them all.
What several rules need, and takes time, is an analysis: ``context.of(replay_of)``.

A new kind of finding is one word in :data:`harness.verdict.finding.KINDS`, at its place in
the order of gravity, which is the order in which rules are asked, too.
"""
