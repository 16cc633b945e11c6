# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that was stopped while a processor had a list in its hands.

A stopped processor may be anywhere, also between the two stores that take a
block off a list.  Then the zone's lock is held, and one block is half on a list.
Such a block is neither free nor lost: it is *in transit*, and left out.  What
remains must pass the whole proof (:mod:`harness.memory.walk.lists`).  Where it does
not, or where no lock is held, the list is corrupt.

The states, from list_del(), list_add() and list_move(), with ``e`` the block on
its way, ``a`` before and ``b`` after it:

- half off: a.next is e, b.prev is a already;
- half on, or half off with the stores in the other order: b.prev is e, a.next is b;
- off, or not yet on: nobody points to e, whose own links are old or poison;
- any of these, or on the list, but not marked as a free block (a block that is
  split is marked last): e is no node of the graph.

Other states have other explanations, one of which is wrong: in particular, a
block that both its neighbours point to is on the list, whatever else is odd.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.memory.walk.errors import TornError, WalkError
from harness.memory.walk.graph import NOBODY, Graph, Nodes
from harness.memory.walk.lists import prove_links
from harness.memory.walk.zones import FreeLists

#: One block on its way leaves a handful of odd links. More is not one block.
_MOST_ODD = 12


@dataclass(frozen=True, eq=False)
class MendedGraph:
    """A graph that is sound without the blocks that are on their way."""

    graph: Graph
    lists: Nodes
    """The list of each block of the mended graph."""
    in_transit: tuple[tuple[int, int], ...]
    """(frame, order); order 0 where it is not known."""


def mend(
    graph: Graph, lists: FreeLists, locked: frozenset[int], said: Nodes, error: WalkError
) -> MendedGraph:
    """Leave out at most one block of each zone whose lock is held.

    ``said``: the zone that each block says it is in.  ``error``: what is wrong with the graph.
    """
    each = lists.orders * len(lists.types)
    zone_of = np.concatenate((said, np.repeat(np.arange(len(lists.zones), dtype=np.int32), each)))
    odd = _odd(graph)
    if not odd or not {int(zone_of[node]) for node in odd} <= locked:
        raise error  # no operation leaves this
    transit: list[tuple[int, int]] = []
    for _ in locked:
        step = _best_removal(graph, odd)
        if step is None:
            break
        frame, node, without = step
        transit.append((frame, 0 if node is None else int(graph.blocks.orders[node])))
        graph = without
        odd = _odd(graph)
        if not odd:
            return MendedGraph(graph, prove_links(graph), tuple(transit))
    names = ", ".join(str(lists.zones[zone]) for zone in sorted(locked))
    raise TornError(
        "torn",
        error.where,
        f"{error.problem}; the lock of {names} is held, so this may be an operation that was interrupted",
        hint="let the guest run and walk again; if it stays, the lists are corrupt",
    ) from error


def _best_removal(graph: Graph, odd: list[int]) -> tuple[int, int | None, Graph] | None:
    """The graph with the fewest odd links without one block: (frame left out, its node, graph)."""
    if len(odd) > _MOST_ODD:
        return None
    found: list[tuple[int, int, int | None, Graph]] = []
    for node in _suspects(graph, odd):
        without = _without(graph, node)
        if without is not None:
            found.append((len(_odd(without)), int(graph.blocks.frames[node]), node, without))
    for address in sorted({graph.address(n, backward=True) for n in odd if graph.prev[n] == NOBODY}):
        frame = int(graph.places.frame(np.array([address], dtype=np.uint64))[0])
        around = _around(graph, address)
        if frame != NOBODY and around is not None:
            found.append((len(_odd(around)), frame, None, around))
    left, frame, removed, best = min(found, key=lambda entry: entry[:2], default=(len(odd), 0, None, graph))
    return (frame, removed, best) if left < len(odd) else None


def _odd(graph: Graph) -> list[int]:
    """Nodes of which a link leads nowhere, or to somebody who does not point back."""
    numbers = np.arange(len(graph), dtype=np.int32)
    bad = (graph.next == NOBODY) | (graph.prev == NOBODY)
    # NOBODY indexes the last node; those are flagged already.
    bad |= graph.prev[graph.next] != numbers
    bad |= graph.next[graph.prev] != numbers
    found: list[int] = np.flatnonzero(bad).tolist()
    return found


def _suspects(graph: Graph, odd: list[int]) -> list[int]:
    """Blocks that are odd, or next to one."""
    nodes = set(odd)
    for node in odd:
        nodes |= {int(graph.next[node]), int(graph.prev[node])}
    return sorted(node for node in nodes if node != NOBODY and not graph.is_head(node))


def _without(graph: Graph, node: int) -> Graph | None:
    """The graph without a block, its neighbours joined; None if it is not clear how."""
    before, after = (_pointing(links, node, but=node) for links in (graph.next, graph.prev))
    if len(before) + len(after) > 1:
        return None
    forward, backward = graph.next.copy(), graph.prev.copy()
    if before:
        follower = graph.next[node]
        if follower == NOBODY or graph.prev[follower] != before[0]:
            return None
        forward[before[0]] = follower
    elif after:
        ahead = _pointing(graph.next, after[0], but=node)
        if len(ahead) != 1:
            return None
        backward[after[0]] = ahead[0]
    blocks = graph.blocks
    kept = np.arange(len(graph)) != node
    own = kept[: len(blocks)]
    fewer = replace(
        blocks,
        frames=blocks.frames[own],
        next=blocks.next[own],
        prev=blocks.prev[own],
        orders=blocks.orders[own],
        flags=blocks.flags[own],
    )
    forward, backward = (_renumber(links[kept], node) for links in (forward, backward))
    return Graph(fewer, graph.heads, graph.places, forward, backward)


def _pointing(links: Nodes, node: int, *, but: int) -> list[int]:
    return [one for one in np.flatnonzero(links == node).tolist() if one != but]


def _renumber(links: Nodes, node: int) -> Nodes:
    """After ``node`` is gone; a link to it leads nowhere."""
    moved = np.where(links > node, links - 1, links)
    return np.where(links == node, NOBODY, moved).astype(np.int32)


def _around(graph: Graph, address: int) -> Graph | None:
    """The graph with the neighbours of a page joined that is on a list, or half on one, but no node."""
    lost_next, lost_prev = (np.flatnonzero(links == NOBODY).tolist() for links in (graph.next, graph.prev))
    before = [node for node in lost_next if graph.address(node) == address]
    after = [node for node in lost_prev if graph.address(node, backward=True) == address]
    if len(after) == 1 and not before:
        before = _pointing(graph.next, after[0], but=NOBODY)
    if len(before) != 1 or len(after) != 1:
        return None
    forward, backward = graph.next.copy(), graph.prev.copy()
    forward[before[0]], backward[after[0]] = after[0], before[0]
    return Graph(graph.blocks, graph.heads, graph.places, forward, backward)
