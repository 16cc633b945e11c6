# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel in a guest's memory: its own description, and its address space.

    kernel = find_kernel(memory)             # looks for the note
    kernel.space.read(kernel.info.symbol("node_data"), 8, "node_data")

What is found is checked against itself before anything is built on it: the page
tables must map the place that they are said to be at, and the running kernel
must call itself what the note calls it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.arch import GUEST, Architecture, PageTables
from harness.memory.walk.errors import WalkError
from harness.memory.walk.exports import find_exports
from harness.memory.walk.extras import Extras, learn_extras
from harness.memory.walk.kallsyms import find_symbols
from harness.memory.walk.kinds import Marks
from harness.memory.walk.layout import Layout
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.physical import GuestMemory
from harness.memory.walk.vmcoreinfo import Note, VmcoreInfo, find_notes, note_at, parse_vmcoreinfo
from harness.units import PAGE_SIZE

#: struct new_utsname: fields of 65 bytes, the release is the third.
_UTS_FIELD = 65
#: The nodes of a kernel with NUMA, and the one of a kernel without.
_NODES = ("node_data", "contig_page_data")


@dataclass(frozen=True, eq=False)
class KernelLayout:
    """One kernel, as far as it does not change while it runs: learn once, walk often."""

    note: Note
    layout: Layout
    root: int
    """The physical address of its page tables."""
    levels: int
    encryption_mask: int
    tables: PageTables
    """How they are laid out, for pages of the kernel's size."""
    architecture: Architecture = GUEST
    extras: Extras = field(default_factory=Extras)
    """What its symbols and types tell on top of that."""

    @property
    def info(self) -> VmcoreInfo:
        """The kernel's VMCOREINFO."""
        return self.note.info

    @property
    def page_size(self) -> int:
        """Bytes of a page of the kernel's."""
        return 1 << self.tables.page_shift

    @property
    def frames_per_page(self) -> int:
        """How many guest frames (of 4 KiB, whatever the kernel) each of its pages is."""
        return self.page_size // PAGE_SIZE

    @property
    def marks(self) -> Marks:
        """How it writes down what a page is."""
        return Marks.of(self.info, self.extras.page_types, self.extras.reserved)

    def zone_name(self, index: int) -> str:
        """What a zone is called, as far as its number tells."""
        names = self.extras.zones or self.tables.zones
        return names[index] if len(names) == self.layout.node.room else f"{index}"

    def space(self, memory: GuestMemory) -> AddressSpace:
        """Its address space.  New for each look: page tables change while a guest runs."""
        return AddressSpace(
            memory,
            self.root,
            self.levels,
            self.encryption_mask,
            self.tables,
            address_bits=self.info.get("NUMBER", "VA_BITS"),
        )


def find_kernel(memory: GuestMemory) -> KernelLayout:
    """The kernel that this memory belongs to; that there is exactly one is part of the answer."""
    found: dict[str, KernelLayout] = {}
    problem: WalkError | None = None
    for address in find_notes(memory):
        try:
            note = note_at(memory, address)
            if note.info.text not in found:
                found[note.info.text] = learn(memory, note)
        except WalkError as error:
            # No note; or left behind by a kernel that ran before, whose pages hold something else by now.
            problem = problem or error
    if not found:
        raise problem or WalkError(
            "no-vmcoreinfo",
            "the guest's memory",
            "no VMCOREINFO note was found in it",
            hint="is a Linux kernel with CONFIG_VMCORE_INFO (or CONFIG_CRASH_CORE) running in it?",
        )
    if len(found) > 1:
        places = ", ".join(f"{kernel.info.release} at {kernel.note.address:#x}" for kernel in found.values())
        raise WalkError(
            "two-kernels",
            "the guest's memory",
            f"more than one kernel's VMCOREINFO holds: {places}",
            hint="name the address of the right note",
        )
    return next(iter(found.values()))


def kernel_from(memory: GuestMemory, source: int | str) -> KernelLayout:
    """The kernel whose note is at an address, or whose VMCOREINFO is this text."""
    note = note_at(memory, source) if isinstance(source, int) else Note(parse_vmcoreinfo(source))
    return learn(memory, note)


def learn(memory: GuestMemory, note: Note, architecture: Architecture = GUEST) -> KernelLayout:
    """Check that a note describes the kernel in this memory."""
    info, tables = note.info, _tables(note.info, architecture)
    top = _symbol(info, tables.roots)
    moved = info.number(tables.moved)
    root = top - tables.image + (moved if tables.moved_up else -moved)
    levels = _levels(info, tables)
    # A positive power of two below the 52nd bit, or none.
    mask = info.get("NUMBER", "sme_mask") or 0
    if mask < 0 or mask & (mask - 1) or mask >> 52 or 0 < mask < PAGE_SIZE:
        raise WalkError("vmcoreinfo", f"VMCOREINFO of {info.release}", f"NUMBER(sme_mask) is {mask:#x}")
    where = f"the kernel {info.release}"
    if root % PAGE_SIZE or root < 0 or not memory.holds(root, PAGE_SIZE):
        raise WalkError("page-table", where, f"its page tables are said to be at {root:#x}, no known memory")
    space = AddressSpace(memory, root, levels, mask, tables, address_bits=info.get("NUMBER", "VA_BITS"))
    if space.translate(top) != root:
        raise WalkError(
            "other-kernel", where, f"its page tables, said to be at {root:#x}, do not map themselves there"
        )
    running = _release(space, info, where)
    if running != info.release:
        raise WalkError("other-kernel", where, f"the kernel in this memory calls itself {running!r}")
    if all(info.get("SYMBOL", name) is None for name in _NODES):
        # Only x86's VMCOREINFO says where the nodes are.
        info = info.with_symbols(_nodes(space, info, where))
    extras = learn_extras(space, info)
    layout = Layout.of(info, len(extras.zones) or None)
    return KernelLayout(replace(note, info=info), layout, root, levels, mask, tables, architecture, extras)


def _nodes(space: AddressSpace, info: VmcoreInfo, where: str) -> Mapping[str, int]:
    """Where the nodes are: by the table of symbols, or, where that cannot be read, by what is exported."""
    for look in (find_symbols, find_exports):
        with contextlib.suppress(WalkError):
            found = look(space, info, _NODES)
            if found.keys() & set(_NODES):
                return found
    raise WalkError("vmcoreinfo-lacks", where, f"nothing tells where its {' or '.join(_NODES)} is")


def _tables(info: VmcoreInfo, architecture: Architecture) -> PageTables:
    try:
        return architecture.page_tables.of_pages(info.page_size)
    except ValueError as error:
        raise WalkError(
            "vmcoreinfo",
            f"VMCOREINFO of {info.release}",
            f"says that the kernel has {error}, which {architecture.name} does not have",
        ) from error


def _levels(info: VmcoreInfo, tables: PageTables) -> int:
    """How deep the page tables are: x86 says so, Arm by how many bits an address has.

    A kernel that is built for more bits than its processor has takes fewer; what the processor was told
    is how many there are above those (TCR_EL1.T1SZ, in VMCOREINFO since 5.11).
    """
    bits = info.get("NUMBER", "VA_BITS")
    if bits is None:
        return 5 if info.get("NUMBER", "pgtable_l5_enabled") else 4
    above = info.get("NUMBER", "TCR_EL1_T1SZ")
    used = bits if above is None else 64 - above
    levels = -(-(used - tables.page_shift) // tables.index_bits)
    if levels not in tables.levels or used > bits:
        raise WalkError(
            "vmcoreinfo",
            f"VMCOREINFO of {info.release}",
            f"an address has {used} bits, NUMBER(VA_BITS) is {bits}",
        )
    return levels


def _symbol(info: VmcoreInfo, names: Sequence[str]) -> int:
    given = next((name for name in names if info.get("SYMBOL", name) is not None), names[0])
    return info.symbol(given)


def _release(space: AddressSpace, info: VmcoreInfo, where: str) -> str:
    address = info.symbol("init_uts_ns") + (info.get("OFFSET", "uts_namespace.name") or 0)
    names = space.read(address, 3 * _UTS_FIELD, f"init_uts_ns of {where}")
    return names[2 * _UTS_FIELD :].split(b"\0", 1)[0].decode("ascii", "replace")
