# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's free page reporting, compiled here: what the allocator is told, and when."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "guest-module"

#: What reporting.c takes from the kernel and from the rest of the driver.
SHIM = r"""
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define EIO 5
#define ENOSPC 28
#define GFP_NOWAIT 0
#define __GFP_NOWARN 0
#define VIRTIO_BALLOON_F_REPORTING 5
#define PAGE_REPORTING_CAPACITY 32
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
enum { FPB_VQ_REPORTING, FPB_NR_VQS };
struct scatterlist;
struct virtqueue { unsigned int size; };
struct virtio_device { int x; };
struct page_reporting_dev_info {
    int (*report)(struct page_reporting_dev_info *, struct scatterlist *, unsigned int);
    unsigned int order;
#ifdef HAVE_PAGE_REPORTING_CAPACITY
    unsigned int capacity;
#endif
};
struct fpb_device {
    struct virtio_device *vdev;
    struct virtqueue *vqs[FPB_NR_VQS];
    struct page_reporting_dev_info reporting;
};
static int add_error, hand_over_error, resets;
static bool virtio_has_feature(struct virtio_device *v, int f) { (void)v; return f == 5; }
static unsigned int virtqueue_get_vring_size(struct virtqueue *vq) { return vq->size; }
static int virtqueue_add_inbuf(struct virtqueue *vq, struct scatterlist *sg, unsigned int n, void *d, int g)
{ (void)vq; (void)sg; (void)n; (void)d; (void)g; return add_error; }
static int fpb_hand_over(struct fpb_device *d, struct virtqueue *vq)
{ (void)d; (void)vq; return hand_over_error; }
static void fpb_wait_for_reset(struct fpb_device *d) { (void)d; resets++; }
static int page_reporting_register(struct page_reporting_dev_info *i) { (void)i; return 0; }
static void page_reporting_unregister(struct page_reporting_dev_info *i) { (void)i; }
"""

MAIN = r"""
int main(void)
{
    struct virtio_device vdev = { 0 };
    struct virtqueue vq = { QUEUE };
    struct fpb_device dev = { &vdev, { &vq }, { 0 } };
    int registered = fpb_reporting_start(&dev);

    printf("registered %d order %d", registered, (int)dev.reporting.order);
#ifdef HAVE_PAGE_REPORTING_CAPACITY
    printf(" capacity %u", dev.reporting.capacity);
#endif
    if (registered)
        return 0;
    printf("\nreported %d", dev.reporting.report(&dev.reporting, NULL, 1));
    add_error = -EIO;
    printf("\nrefused %d after %d resets", dev.reporting.report(&dev.reporting, NULL, 1), resets);
    add_error = 0;
    hand_over_error = -EIO;
    printf("\nbroken %d", dev.reporting.report(&dev.reporting, NULL, 1));
    printf(" after %d resets\n", resets);
    fpb_reporting_stop(&dev);
    return 0;
}
"""


def run(folder: Path, queue: int, *options: str) -> list[str]:
    """Compile the driver's own file with these answers of probes, and print what it does."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    source = re.sub(r'#include [<"].*[>"]', "", (MODULE / "reporting.c").read_text("utf-8"))
    (folder / "reporting.c").write_text(f"{SHIM}{source}{MAIN}", encoding="utf-8")
    program = folder / "reporting"
    flags = ["-Wall", "-Wextra", "-Werror", f"-DQUEUE={queue}", *options]
    subprocess.run([compiler, *flags, "-o", program, folder / "reporting.c"], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


SMALL_PAGES = "-DPAGE_REPORTING_ORDER_UNSPECIFIED=-1"
LARGE_PAGES = ("-DCONFIG_ARM64", "-DCONFIG_ARM64_64K_PAGES", SMALL_PAGES)


def test_a_report_that_the_host_did_not_take_is_none(tmp_path: Path) -> None:
    """Pages that were not reported must not be marked so; and those that may be, are kept until the reset."""
    said = run(tmp_path, 128, SMALL_PAGES)
    assert said[1:] == ["reported 0", "refused -5 after 0 resets", "broken -5 after 1 resets"]


def test_the_order_is_the_kernels_own_but_where_pages_are_large(tmp_path: Path) -> None:
    assert run(tmp_path, 128)[0] == "registered 0 order 0"
    assert run(tmp_path, 128, SMALL_PAGES)[0] == "registered 0 order -1"
    assert run(tmp_path, 128, *LARGE_PAGES)[0] == "registered 0 order 5"


def test_a_small_queue_is_used_where_the_kernel_can_say_so(tmp_path: Path) -> None:
    able = "-DHAVE_PAGE_REPORTING_CAPACITY"
    assert run(tmp_path, 8, SMALL_PAGES, able)[0] == "registered 0 order -1 capacity 8"
    # Else reports would not fit: as the kernel's own driver of that age.
    assert run(tmp_path, 8, SMALL_PAGES) == ["registered -28 order -1"]
