# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixture ``lab`` without any guest: where a test's body runs, and how what comes of it is reported."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

#: Nothing has to be built.
CONFTEST = "import harness.testing.lab\nharness.testing.lab.build_lab = lambda options: []\n"


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test)
    command = ("-p", "harness.testing.plugin", "-p", "no:cacheprovider", *options)
    # A process of its own: it forks, and pytest's own test of pytest does not.
    return pytester.runpytest_subprocess(*command, timeout=120)


def test_the_body_runs_in_a_lab_and_fixtures_outside(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
        import os, pytest
        from harness.hosts.enter import inside_lab

        @pytest.fixture
        def outer(tmp_path):
            before = os.getpid()
            yield tmp_path
            assert os.getpid() == before and not inside_lab()
            assert (tmp_path / "written").read_text() == "inside"

        def test_it(lab, outer):
            assert inside_lab()
            assert os.listdir("/sys/class/net") == ["lo"]
            (outer / "written").write_text("inside")

        def test_elsewhere():
            assert not inside_lab()
        """,
    )
    done.assert_outcomes(passed=2)


REPORTED = """
    import os, signal, pytest
    from harness.errors import GuestLost

    def test_fails(lab):
        print("said before", flush=True)
        mine = [1, 2]
        assert mine == [1, 3]

    def test_is_lost(lab):
        raise GuestLost("the guest is gone", hint="look at its console")

    def test_is_killed(lab):
        os.kill(os.getpid(), signal.SIGKILL)

    def test_skips(lab):
        pytest.skip("not today")

    @pytest.mark.xfail(reason="known")
    def test_expected(lab):
        assert False

    @pytest.mark.xfail(strict=True)
    def test_unexpected(lab):
        pass

    @pytest.mark.xfail
    def test_lost_is_never_expected(lab):
        raise GuestLost("gone again")

    def test_cleans_up(lab):
        lab.enter(__import__("contextlib").closing(Bad()))

    class Bad:
        def close(self):
            raise RuntimeError("cannot close")
"""


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("--capture=sys",)], ids=["alone", "xdist", "sys"])
def test_what_comes_of_it_is_reported(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    done = run(pytester, REPORTED, "-rA", *options)
    done.assert_outcomes(failed=3, errors=3, skipped=1, xfailed=1)
    text = done.stdout.str()
    # With the traceback, and the values that are compared; and with what it has printed.
    assert "assert [1, 2] == [1, 3]" in text
    assert "said before" in text
    assert text.count("folder of this test: ") == 6
    assert "the guest is gone" in text
    assert "the command was killed inside its lab by SIGKILL" in text
    assert "[XPASS(strict)]" in text
    assert "cannot close" in text


def test_a_test_that_is_given_up_takes_its_lab_with_it(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
        import time, psutil, pytest

        @pytest.mark.timeout(3)
        def test_hangs(lab):
            time.sleep(1000)

        def test_then():
            assert not psutil.Process().children()
        """,
    )
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*Timeout*"])
