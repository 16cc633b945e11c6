# SPDX-License-Identifier: GPL-2.0-or-later
"""What every workload has: its keys, what it needs, which pages are its own, what its answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, TypeAlias

from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Section, Share
from harness.scenario.workloads.answer import Answer
from harness.units import PAGE_SIZE, Percent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    import numpy as np
    import numpy.typing as npt

    from harness.guestview.partner import Partner
    from harness.guestview.report import Aftermath

    # numpy takes a tenth of a second to import: only what asks for pages pays for it.
    from harness.memory.formula import Generations, VerifyAnswer, Words

#: Filling memory takes a moment under emulation: seconds, and more for each MiB.
LOAD_SECONDS: Final = 60.0


class Workload(Section):
    """What the guest does with its memory.

    A class below this one with a default for ``kind`` is a workload of that name.  Its fields are the keys
    that a scenario may give; the words under a field become its documentation.
    """

    #: What its counter of work counts; empty: it does none.
    work_unit: ClassVar[str] = ""
    #: Once it is loaded it neither allocates nor frees.
    stands_still: ClassVar[bool] = True
    #: How long its loading may take for each MiB of noise, emulated on a busy machine.
    load_seconds_per_mib: ClassVar[float] = 0.2
    #: The guest that has what it needs.
    image: ClassVar[Literal["small", "debian"]] = "small"
    #: It reads a disk that holds the formula, of the size of its noise.
    reads_disk: ClassVar[bool] = False
    #: It needs a compiler and sources in the guest.
    needs_compiler: ClassVar[bool] = False
    #: It writes to a disk of its own, blank at first, of the size :attr:`disk_bytes`.
    writes_disk: ClassVar[bool] = False
    #: The guest has to be reached over the network, which it has in a lab.
    needs_network: ClassVar[bool] = False
    #: It answers ``report`` with more than pages: see :meth:`facts`.
    reports: ClassVar[bool] = False

    #: What its report says of time is told from what the host's own load has done to it.
    punctual: ClassVar[bool] = False

    #: While it works it gives pages up, which others may then have.
    frees: ClassVar[bool] = False

    kind: str
    """Which workload."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Register it by its kind."""
        WORKLOADS.add(cls)

    @classmethod
    def doc_notes(cls) -> tuple[str, ...]:
        """What it needs, and what its work is counted in."""
        notes = {
            f"Its work is counted in {cls.work_unit}.": cls.work_unit,
            f"It needs the image {cls.image}.": cls.image != "small",
            "The testbed makes the disk that it reads, which the image debian has not.": cls.reads_disk,
            "A compiler and sources are unpacked over the guest's image.": cls.needs_compiler,
            "The host reaches it over the network of a lab.": cls.needs_network,
            "It writes to a disk of its own, which the image debian has not.": cls.writes_disk,
        }
        return tuple(note for note, holds in notes.items() if holds)

    @property
    def own_program(self) -> Path | None:
        """A program of the user's, which the guest is given; None: it needs none."""
        return None

    @property
    def disk_bytes(self) -> int:
        """How large the disk is that it writes to."""
        return 0

    def partner(self, seed: int, address: str) -> Partner | None:
        """The host's half of one that :attr:`reports`; it reaches the guest at ``address``."""
        return None

    @property
    def partner_seconds(self) -> float:
        """How long its partner may take to come to an end, once the guest runs on its last host."""
        return 0.0

    def facts(self, aftermath: Aftermath) -> Sequence[object]:
        """What its report means, as facts for the verdict: each is an instance of a class of its own.

        Called for one that :attr:`reports`, after it has stopped in a guest that has moved.
        Raises :class:`harness.errors.MachineryError` for a report that makes no sense.
        """
        return ()

    def noise_bytes(self, memory: int) -> int:
        """How much memory it works on, in whole pages, of ``memory`` bytes that the kernel leaves it."""
        return 0

    def with_noise(self, size: int) -> Self:
        """The same with a share of the guest's memory replaced by what that came to, in bytes."""
        return self

    def load_words(self, seed: int, noise: int) -> tuple[str, ...]:
        """The arguments of the guest's ``load``: kind, seed, bytes of noise, then key=value."""
        values = {key: getattr(self, key) for key in type(self).model_fields if key not in ("kind", "noise")}
        return (
            *(self.kind, str(seed), str(noise)),
            *(f"{key}={value}" for key, value in values.items() if value is not None),
        )

    def load_seconds(self, noise: int) -> float:
        """How many seconds its loading may take with so many bytes of noise."""
        return LOAD_SECONDS + self.load_seconds_per_mib * noise / (1 << 20)

    def content_seed(self, seed: int) -> int:
        """The seed of the formula that its pages follow, in a run with this seed."""
        return seed

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """The generation of every page of its own after ``steps`` steps; FREED where it has given one up."""
        raise NotImplementedError

    def writes(self, seed: int, noise: int, steps: int) -> tuple[Words, Words]:
        """Each page that it writes in its first ``steps`` steps, with the step; nothing without steps."""
        import numpy as np

        return np.empty(0, np.uint64), np.empty(0, np.uint64)

    def expected(self, seed: int, noise: int, steps: int = 0) -> VerifyAnswer:
        """What the guest must find in the workload's pages after ``steps`` steps."""
        from harness.memory import formula

        return formula.expected(self.content_seed(seed), self.generations(seed, noise, steps))

    def owns(self, seed: int, noise: int, keys: Words) -> npt.NDArray[np.bool_]:
        """Which of the pages with these keys of the formula it has not given up.

        For a workload whose pages change, every page that still follows the formula.
        """
        from harness.memory import formula

        numbers = formula.first_generation(self.content_seed(seed), keys)
        return formula.among(numbers, self.generations(seed, noise, 0))

    def wrong(self, answer: Answer) -> int:
        """How many wrong things the guest has found, by its answer to ``verify``.

        What the workload found while it worked counts as well: it covers its own tracks.
        """
        return answer.bad + answer.live_bad

    def matches(self, answer: Answer, seed: int, noise: int) -> bool:
        """Whether the guest found in the workload's pages what the host knows must be there."""
        expected = self.expected(seed, noise, answer.steps)
        return (answer.pages, answer.checksum) == (expected.pages, expected.checksum)


#: By the word that chooses them.
WORKLOADS: Final[Registry[Workload]] = Registry(Workload, key="kind", noun="workload")

AnyWorkload: TypeAlias = Annotated[Workload, OneOf(WORKLOADS)]


class Filling(Workload):
    """A workload that is given an amount of memory to work on."""

    noise: Share
    """How much memory it works on: a size, or a share of the guest's memory."""

    def noise_bytes(self, memory: int) -> int:
        """Its ``noise``, a share taken of ``memory``."""
        size = self.noise.of(max(0, memory)) if isinstance(self.noise, Percent) else self.noise
        return size - size % PAGE_SIZE

    def with_noise(self, size: int) -> Self:
        """With ``noise`` in bytes."""
        return self.model_copy(update={"noise": size})


class Advised(Filling):
    """One of which the guest's kernel can be told to treat its memory in a way of its own."""

    advice: Literal["huge", "mergeable"] | None = None
    """What madvise() tells the guest's kernel of its memory. huge: transparent huge pages, also where pages
    are freed one by one. mergeable: equal pages may be made one by KSM, once a command has told the guest to
    run it. null: nothing."""
