# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's probes and ``compat.h``, against headers that are as old and as new as a test needs.

What is asked of real kernels' headers is seen by ``tests/vm/test_module_build.py``; here are the
forms of which no package is at hand, and those that nobody knows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "guest-module"

#: What a probe's exit is decided by, and nothing that depends on a kernel's own flags.
STRICT = re.findall(r"-Werror=[\w-]+", (MODULE / "Kbuild").read_text("utf-8"))

COMMON = """
#include "types.h"
struct list_head { struct list_head *next; };
struct balloon_dev_info { %s struct list_head pages; };
struct page *balloon_page_dequeue(struct balloon_dev_info *info);
"""
LOCK = "spinlock_t pages_lock;"
INSERT = "void balloon_page_insert(struct balloon_dev_info *info, struct page *page);\n"
DELETE = "void balloon_page_delete(struct page *page);\n"
FINALIZE = "void balloon_page_finalize(struct page *page);\n"
RECLAIM = "enum %s { PGSTEAL_KSWAPD, PGSTEAL_DIRECT, PGSCAN_KSWAPD, PGSCAN_DIRECT };\n"

#: Enough of what ``compat.h`` includes.
TYPES = """
#ifndef TYPES_H
#define TYPES_H
typedef _Bool bool;
enum { false, true };
typedef unsigned long long u64;
typedef struct { int x; } spinlock_t;
struct page { int x; };
#define spin_lock_irqsave(lock, flags) ((void)(lock), (void)((flags) = 0))
#define spin_unlock_irqrestore(lock, flags) ((void)(lock), (void)(flags))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define EINVAL 22
#define NULL ((void *)0)
struct virtqueue;
struct virtio_device;
typedef void vq_callback_t(struct virtqueue *);
struct virtio_device { struct { u64 (*get_features)(struct virtio_device *); } *config; };
int virtio_find_vqs(struct virtio_device *, unsigned int, struct virtqueue **, vq_callback_t *[],
                    const char *const [], void *);
#endif
"""


@dataclass(frozen=True)
class Headers:
    """The parts of a kernel's headers that the module's probes look at."""

    balloon_compaction: str = COMMON % LOCK + INSERT + FINALIZE
    balloon: str | None = None
    events: str = RECLAIM % "vm_event_item"
    node_stats: str = "enum node_stat_item { NR_FREE };\n"
    config: str = "CONFIG_BALLOON_COMPACTION"
    others: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Below ``folder``, as ``-I`` wants them."""
        mmzone = '#include "types.h"\nstruct zone { spinlock_t lock; int free_area[11]; };\n'
        files = {
            "linux/balloon_compaction.h": self.balloon_compaction,
            "linux/vm_event_item.h": self.events,
            "linux/mmzone.h": mmzone + self.node_stats,
            **dict.fromkeys(
                ("linux/migrate.h", "linux/module.h", "linux/slab.h", "linux/spinlock.h"),
                '#include "types.h"\n',
            ),
            **dict.fromkeys(("linux/virtio.h", "linux/virtio_config.h"), '#include "types.h"\n'),
            "types.h": TYPES + f"#define {self.config} 1\n",
            **self.others,
        }
        if self.balloon is not None:
            files["linux/balloon.h"] = self.balloon
            del files["linux/balloon_compaction.h"]
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#pragma once\n{text}", encoding="utf-8")


def compiles(folder: Path, source: Path, *options: str) -> str | None:
    """What the compiler complains about, or None."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    command = [compiler, "-fsyntax-only", "-Wno-error", *STRICT, *options, "-I", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else None


def answers(folder: Path) -> set[str]:
    """The probes that say yes."""
    return {path.stem for path in (MODULE / "probes").glob("*.c") if compiles(folder, path) is None}


def build(folder: Path) -> str | None:
    """What stops a build with these headers, if anything does."""
    options = [f"-DHAVE_{name.upper()}" for name in answers(folder)]
    source = folder / "includes_compat.c"
    source.write_text(f'#include "types.h"\n#include "{MODULE}/compat.h"\n', encoding="utf-8")
    return compiles(folder, source, *options)


EARLY = Headers(balloon_compaction=COMMON % LOCK + INSERT + DELETE)
LATE = Headers()
COUNTS = Headers(
    balloon=COMMON % "bool adjust_managed_page_count;",
    config="CONFIG_BALLOON_MIGRATION",
    events="enum vm_event_item { PGPGIN };\n",
    node_stats=RECLAIM % "node_stat_item",
)


@pytest.mark.parametrize(
    ("headers", "name"),
    [(EARLY, "balloon_page_delete"), (LATE, "balloon_page_finalize")],
    ids=["early-stable", "late-stable"],
)
def test_how_a_page_leaves_the_balloon_is_known_for_early_and_late_stable_kernels(
    tmp_path: Path, headers: Headers, name: str
) -> None:
    headers.write(tmp_path)
    assert build(tmp_path) is None
    said = answers(tmp_path)
    assert said >= {name, "balloon_pages_lock", "reclaim_events"}
    assert not said & ({"balloon_page_delete", "balloon_page_finalize"} - {name})
    # And that is what the module calls.
    source = tmp_path / "calls.c"
    flags = [f"-DHAVE_{answer.upper()}" for answer in said]
    source.write_text(f'#include "types.h"\n#include "{MODULE}/compat.h"\nfpb_finalize_page\n', "utf-8")
    command = ["gcc", "-E", "-P", *flags, "-I", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == name


def test_a_kernel_whose_common_part_changes_the_list(tmp_path: Path) -> None:
    COUNTS.write(tmp_path)
    assert build(tmp_path) is None
    said = answers(tmp_path)
    assert said >= {"balloon_counts_pages", "balloon_header", "reclaim_node_stats"}
    assert "balloon_pages_lock" not in said and "reclaim_events" not in said


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (Headers(balloon_compaction=COMMON % LOCK + INSERT), "no known way for a page that was moved"),
        (Headers(balloon_compaction=COMMON % ""), "who changes the balloon's list"),
        (Headers(events="enum vm_event_item { PGPGIN };\n"), "counters of reclaim"),
        (Headers(node_stats='#include "linux/vm_event_item.h"\n'), "counters of reclaim"),
        (Headers(others={"linux/module.h": "#error\n"}), "the probes of this build say nothing"),
        (Headers(others={"linux/mmzone.h": "struct zone { int free_area[11]; };"}), "not zone->lock"),
    ],
)
def test_a_form_that_nobody_knows_stops_the_build(tmp_path: Path, headers: Headers, why: str) -> None:
    headers.write(tmp_path)
    error = build(tmp_path)
    assert error is not None and why in error


def test_a_kernel_that_moves_no_ballooned_pages_needs_no_way_to_do_it(tmp_path: Path) -> None:
    Headers(balloon_compaction=COMMON % "", config="CONFIG_OTHER").write(tmp_path)
    assert build(tmp_path) is None
