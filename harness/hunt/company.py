# SPDX-License-Identifier: GPL-2.0-or-later
"""What a key cannot be without: ``migration.mapped_ram`` is nothing without ``migration.to: file``.  Pure.

Two keys that are drawn by themselves hardly ever meet with the very values that they need of each other.
Whether one stands alone is asked of the language's models: if they refuse it alone, the smallest sets of
others with which they take it are its company, and one of them is drawn with it.  What stands alone but does
nothing is in :data:`NO_EFFECT_WITHOUT`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from harness.hunt.language import DrawnKey

#: Keys and their values, dotted.
Company = Mapping[str, Any]

#: QEMU's parameters and capabilities, and the key that has to be on for them to mean anything.
NO_EFFECT_WITHOUT: Final[Mapping[str, Company]] = {
    "multifd-compression": {"migration.multifd": 2},
    "zero-copy-send": {"migration.multifd": 2},
    "xbzrle-cache-size": {"migration.xbzrle": True},
    "cpu-throttle-initial": {"migration.auto_converge": True},
    "max-cpu-throttle": {"migration.auto_converge": True},
}
#: The most others that are looked for.
_MOST: Final = 3


class Companions:
    """Looks for company among ``keys``; ``valid`` says whether settings make a scenario."""

    def __init__(self, keys: Sequence[DrawnKey], valid: Callable[[Company], bool]) -> None:
        self._keys = tuple(keys)
        self._valid = valid
        self._of = cache(self._look_for)

    def of(self, key: str, value: Any) -> tuple[Company, ...]:
        """The sets of settings of which a key with a value needs one; none: it needs nobody."""
        return self._of(key, json.dumps(value, sort_keys=True))

    def _look_for(self, key: str, text: str) -> tuple[Company, ...]:
        value = json.loads(text)
        if self._valid({key: value}):
            named = value if isinstance(value, Mapping) else {}
            return tuple(NO_EFFECT_WITHOUT[name] for name in named if name in NO_EFFECT_WITHOUT)
        for size in range(1, _MOST + 1):
            found = tuple(one for one in self._sets(key, size) if self._valid({**one, key: value}))
            if found:
                return found
        return ()

    def _sets(self, key: str, size: int) -> Iterator[Company]:
        section = key.partition(".")[0]
        others = [
            (other.key, value)
            for other in self._keys
            # Several others are looked for in its own section: of all there would be too many.
            if other.key != key and (size == 1 or other.key.startswith(f"{section}."))
            for value in other.values
        ]
        for chosen in itertools.combinations(others, size):
            found = dict(chosen)
            if len(found) == size:
                yield found
