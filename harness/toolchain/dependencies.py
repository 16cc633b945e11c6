# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packages some packages are not whole without, as apt would find them on an empty machine.

Nothing is installed: what conflicts is of no matter, and neither is what is only recommended.  Of
alternatives the first is taken, unless another is there already; of those that provide what is no package
of its own, the one that Debian holds most important.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from debian.deb822 import PkgRelation
from debian.debian_support import Version

from harness.errors import MachineryError
from harness.toolchain.control import Paragraphs

_PRIORITIES: Final = ("required", "important", "standard", "optional", "extra")
_HOLDS: Final[Mapping[str, Callable[[Version, Version], bool]]] = {
    "<<": lambda ours, bound: ours < bound,
    "<=": lambda ours, bound: ours <= bound,
    "=": lambda ours, bound: ours == bound,
    ">=": lambda ours, bound: ours >= bound,
    ">>": lambda ours, bound: ours > bound,
}


def newest(lists: Sequence[Paragraphs], name: str) -> Mapping[str, str] | None:
    """A package as the first of these lists that has it describes it."""
    return next((fields for each in lists if (fields := each.newest(name)) is not None), None)


def closure(lists: Sequence[Paragraphs], names: Sequence[str], suite: str) -> list[str]:
    """The names of these packages and of all that they need, sorted.

    ``suite`` is what the lists are called in an error.
    """
    return sorted(_Search(lists, suite).run(names))


@dataclasses.dataclass(frozen=True)
class _Search:
    lists: Sequence[Paragraphs]
    suite: str
    chosen: dict[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def run(self, names: Sequence[str]) -> Iterator[str]:
        waiting = deque(sorted(names))
        while waiting:
            name = waiting.popleft()
            if name in self.chosen:
                continue
            fields = newest(self.lists, name)
            if fields is None:
                raise MachineryError(f"Debian {self.suite} has no package {name}")
            self.chosen[name] = fields
            for field in ("Pre-Depends", "Depends"):
                for group in PkgRelation.parse_relations(fields[field]) if field in fields else ():
                    waiting.extend(self._needed(name, group))
        return iter(self.chosen)

    def _needed(self, name: str, group: list[PkgRelation.ParsedRelation]) -> list[str]:
        """What one group of alternatives adds: nothing if one of them is there."""
        offers = [offer for relation in group for offer in self._offers(relation)]
        if any(offer in self.chosen for offer in offers):
            return []
        if not offers:
            words = " | ".join(relation["name"] for relation in group)
            raise MachineryError(f"Debian {self.suite} has not what {name} needs: {words}")
        return offers[:1]

    def _offers(self, relation: PkgRelation.ParsedRelation) -> list[str]:
        """The packages that do for this: the one of that name, or those that provide it."""
        name, version = relation["name"], relation["version"]
        fields = newest(self.lists, name)
        if fields is not None and _holds(fields["Version"], version):
            return [name]
        found = {
            provider: given
            for each in reversed(self.lists)
            for provider, given in each.providers(name)
            if version is None or (given is not None and _holds(given, version))
        }
        return sorted(found, key=lambda provider: (self._priority(provider), provider))

    def _priority(self, name: str) -> int:
        fields = newest(self.lists, name) or {}
        priority = fields.get("Priority", "")
        return _PRIORITIES.index(priority) if priority in _PRIORITIES else len(_PRIORITIES)


def _holds(ours: str, wanted: tuple[str, str] | None) -> bool:
    if wanted is None:
        return True
    holds = _HOLDS.get(wanted[0])
    return holds is not None and holds(Version(ours), Version(wanted[1]))
