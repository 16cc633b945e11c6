# SPDX-License-Identifier: GPL-2.0-or-later
"""The base of all actions of a script, and their registry.

An action is one class.  To write it is all that there is to do::

    class Resume(Action):
        \"\"\"Let the guest run.\"\"\"

        action: Literal["resume"] = "resume"

        def carry_out(self, stage: Stage, deadline: Deadline) -> None:
            stage.source.execute("cont")

Its docstring, its keys and their docstrings are its documentation, and its part of
the JSON Schema.  It is registered as its class is made, under its ``action`` word.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import Section

if TYPE_CHECKING:
    from harness.events import Deadline
    from harness.scenario.actions.stage import Stage


#: What a guest that answers may take for what it is asked for: less than :attr:`Action.seconds`.
GUEST_SECONDS: Final = 90.0


class Action(Section):
    """Something that a script does.  A class that has an ``action`` word of its own is registered."""

    #: Which action.
    action: str

    #: It waits for the guest, which has to run for it; so it is carried out in a thread of its own.
    needs_guest: ClassVar[bool] = False
    #: It waits for something else that takes its time; so it has a thread as well.
    waits: ClassVar[bool] = False
    #: It needs the guest's module built with its controls for tests.
    needs_controls: ClassVar[bool] = False
    #: It needs a network between the hosts that is the run's own.
    needs_network: ClassVar[bool] = False
    #: It changes what that network is like.
    changes_wire: ClassVar[bool] = False
    #: It has the QEMUs connect once more, to each other.
    connects_anew: ClassVar[bool] = False
    #: It needs the kernel's file in the guest.
    needs_kernel: ClassVar[bool] = False
    #: It needs a migration that may switch to postcopy.
    needs_postcopy: ClassVar[bool] = False
    #: It needs a guest under KVM.
    needs_kvm: ClassVar[bool] = False
    #: It needs memory that a virtio-mem device gives.
    needs_virtio_mem: ClassVar[bool] = False
    #: After it the guest has booted again.
    restarts: ClassVar[bool] = False
    #: Whether the guest's processors run after it; None: as before.
    runs_after: ClassVar[bool | None] = None
    #: The only moments at which it can be done; none: any.
    only_at: ClassVar[tuple[str, ...]] = ()
    #: In a hold of the device it is the hold's end.
    ends_hold: ClassVar[bool] = False
    #: The status of the source's QEMU by which it shows that this was taken; None: nothing shows it.
    brings: ClassVar[str | None] = None
    #: The rules by which it may find something wrong (``stage.find``), each with the words of the table of
    #: all rules: "found when ...".
    finds: ClassVar[Mapping[str, str]] = {}
    #: Seconds that it may take; the guest may be emulated, and have memory to move.
    seconds: ClassVar[float] = 180.0

    @property
    def not_by_libvirt(self) -> str | None:
        """Why it cannot be done to a migration to postcopy that libvirt makes; None: it can."""
        return None

    @property
    def needs_libvirt(self) -> str | None:
        """Why it can be done to no migration to postcopy but libvirt's; None: to any."""
        return None

    @property
    def needs_destination(self) -> bool:
        """Whether it is done to the destination's QEMU, or to what serves that."""
        return False

    @property
    def ends_guest(self) -> bool:
        """Whether no QEMU has the guest after it, unless the guest has left."""
        return False

    @property
    def needs_guest_there(self) -> bool:
        """Whether it waits for something that the guest does on the destination."""
        return False

    @property
    def changes_limit(self) -> bool:
        """Whether it changes what may be sent in a second, or how long the guest may pause."""
        return False

    @property
    def touches_wire(self) -> bool:
        """Whether it does something to the network between the hosts, whoever else uses it."""
        return self.changes_wire

    @property
    def needs_backend(self) -> str | None:
        """A device that a program beside QEMU has to serve, by its word; None: of no matter."""
        return None

    @property
    def needs_room(self) -> bool:
        """Whether a disk has to be in a small file system of its own."""
        return False

    @property
    def plugs(self) -> tuple[str, int, bool] | None:
        """Which of the guest's own devices it plugs in (True) or out: its list and its place there."""
        return None

    @property
    def plugs_vcpus(self) -> int:
        """How many more vCPUs the guest has after it."""
        return 0

    @abstractmethod
    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Do it; ``deadline`` is ``seconds`` from now.

        One that neither needs the guest nor ``waits`` is called in the main thread, which
        follows the migration: it must not wait for what the migration has to do.
        """

    @classmethod
    def doc_notes(cls) -> tuple[str, ...]:
        """Sentences for the documentation, beside the docstring: what it needs."""
        notes = {
            "It needs a running guest.": cls.needs_guest,
            "It needs `guest.module: test`.": cls.needs_controls,
            "It needs the lab's own network.": cls.needs_network,
            "It needs `migration.postcopy: true`.": cls.needs_postcopy,
            "It needs `walk: false`.": cls.restarts,
            "It needs KVM.": cls.needs_kvm,
            "It needs `guest.virtio_mem`.": cls.needs_virtio_mem,
        }
        return tuple(note for note, holds in notes.items() if holds)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Register it by its word."""
        ACTIONS.add(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        # One description for all, which no class has to repeat.
        handler.resolve_ref_schema(schema)["properties"][ACTIONS.key]["description"] = "Which action."
        return schema


#: By the word that chooses them, in the order in which they were written.
ACTIONS: Final[Registry[Action]] = Registry(Action, key="action", noun="action")  # type: ignore[type-abstract]

AnyAction: TypeAlias = Annotated[Action, OneOf(ACTIONS)]


def rules_of_actions() -> dict[str, str]:
    """All that actions may find: names of rules, each with its words."""
    return {name: words for action in ACTIONS.values() for name, words in action.finds.items()}


class GuestAction(Action):
    """An action that the guest's agent carries out."""

    needs_guest = True


class ControlAction(GuestAction):
    """An action of the guest's module with its controls for tests."""

    needs_controls = True
