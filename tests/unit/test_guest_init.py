# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's first process, compiled here: who of those that die was a session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GUEST = Path(__file__).parents[2] / "vm-images" / "guest"

PROGRAM = r"""
#define main init_main
#include "init.c"
#undef main
#include <sys/prctl.h>

/* A child that ends at once; with a child of its own, which is left to us and ends as well. */
static pid_t mortal(int orphan)
{
    pid_t pid = fork();

    if (!pid) {
        if (orphan && !fork())
            _exit(0);
        _exit(0);
    }
    return pid;
}

static void reap_all(void)
{
    siginfo_t info;

    while (!waitid(P_ALL, 0, &info, WEXITED | WNOWAIT))
        reap(-1);
}

int main(void)
{
    pid_t waiting;
    int i;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    session_began(-1);
    printf("none %d\n", sessions.count);
    session_began(mortal(0));
    session_began(mortal(0));
    waiting = fork();
    if (!waiting) {
        pause();
        _exit(0);
    }
    session_began(waiting);
    printf("three %d\n", sessions.count);
    for (i = 0; i < 5; i++)
        mortal(1);
    while (sessions.count > 1)
        reap(-1);
    usleep(100000);
    reap(-1);
    printf("one is left %d\n", sessions.count);
    kill(waiting, SIGKILL);
    reap_all();
    printf("the last %d\n", sessions.count);
    return 0;
}
"""


def test_an_orphan_that_dies_is_no_session(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    (tmp_path / "test.c").write_text(PROGRAM, encoding="utf-8")
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{GUEST}", "-fsanitize=address,undefined"]
    command = [compiler, *flags, "-o", tmp_path / "test", tmp_path / "test.c"]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["none 0", "three 3", "one is left 1", "the last 0"], done.stderr
