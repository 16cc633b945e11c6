# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin: fixtures, options, and what a failure says.  docs/testing.md is the manual.

It is loaded in every session of a Python that has this package, so it imports
nothing heavy until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from harness.errors import MachineryError
from harness.testing import dimensions, folders
from harness.testing.command import Freepage
from harness.testing.options import RunOptions
from harness.testing.reports import SECTION, Elsewhere, adopt, make_error

if TYPE_CHECKING:
    from harness.testing.lab import LabFixture

_FREEPAGE: Final = pytest.StashKey[Freepage]()
_FOLDER: Final = pytest.StashKey[Path]()
#: What a lab must not hide.
_VISIBLE: Final = pytest.StashKey[list[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("freepage", "migration of guests (freepage-testbed)")
    dimensions.add_options(group)
    group.addoption(
        "--freepage-out",
        metavar="DIR",
        help=f"where each session gets a folder, and in it each test; default: {folders.RESULTS_FOLDER}",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{dimensions.PYTEST_MARKER}({', '.join(dimensions.DIMENSIONS)}): repeat a test along these",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist which folder is the session's."""
    node.workerinput["freepage_session"] = str(folders.session_folder(node.config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat tests along their dimensions."""
    dimensions.parametrise(metafunc)


# --- what a test is given


@pytest.fixture(scope="session")
def freepage_session(pytestconfig: pytest.Config) -> Path:
    """The folder of this session."""
    folder = folders.session_folder(pytestconfig)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def freepage_folder(freepage_session: Path, request: pytest.FixtureRequest) -> Path:
    """The test's own folder.  It survives the test, and a failure names it."""
    folder = folders.new_folder(freepage_session, request.node.nodeid)
    request.node.stash[_FOLDER] = folder
    return folder


@pytest.fixture(scope="session")
def freepage_arm() -> str | None:
    """The arm that a run uses unless it is told otherwise; None: the scenario's."""
    return None


@pytest.fixture(scope="session")
def freepage_accel() -> str | None:
    """The accelerator that a run uses unless it is told otherwise; None: the scenario's."""
    return None


@pytest.fixture(scope="session")
def freepage_machine() -> str | None:
    """The machine type that a run uses unless it is told otherwise; None: the scenario's."""
    return None


@pytest.fixture(scope="session")
def freepage_kernel() -> str | None:
    """The guest's kernel unless a run is told otherwise; None: the testbed's own."""
    return None


@pytest.fixture(scope="session")
def freepage_qemu() -> str | None:
    """The QEMU of both sides unless a run is told otherwise; None: the one that the testbed builds."""
    return None


@pytest.fixture
def freepage_defaults(
    freepage_arm: str | None,
    freepage_accel: str | None,
    freepage_machine: str | None,
    freepage_kernel: str | None,
    freepage_qemu: str | None,
) -> RunOptions:
    """What every run of the test has in common; override it for options of your own."""
    values = {
        "arm": freepage_arm,
        "accel": freepage_accel,
        "machine": freepage_machine,
        "kernel": freepage_kernel,
        "qemu": freepage_qemu,
    }
    defaults = RunOptions()
    defaults.update({key: value for key, value in values.items() if value is not None})  # type: ignore[typeddict-item]
    return defaults


@pytest.fixture
def freepage(
    freepage_folder: Path, freepage_defaults: RunOptions, request: pytest.FixtureRequest
) -> Iterator[Freepage]:
    """The command, for this test: see :class:`harness.testing.Freepage`."""
    command = Freepage(freepage_folder, freepage_defaults)
    request.node.stash[_FREEPAGE] = command
    yield command
    command.close()


@pytest.fixture
def lab(freepage_folder: Path, freepage_defaults: RunOptions, request: pytest.FixtureRequest) -> LabFixture:
    """The body of the test runs in a lab, and boots a guest there: :class:`harness.testing.LabFixture`."""
    from harness.testing.lab import LabFixture, build_lab

    fixture = LabFixture(freepage_folder, freepage_defaults)
    request.node.stash[_VISIBLE] = [freepage_folder, *build_lab(freepage_defaults)]
    return fixture


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run the body of a test that has a lab in there."""
    lab: Any = pyfuncitem.funcargs.get("lab")
    if _VISIBLE not in pyfuncitem.stash or lab is None:
        return None
    from harness.testing.inside import call_in_lab

    __tracebackhide__ = True
    visible = pyfuncitem.stash[_VISIBLE]
    places = [value for value in pyfuncitem.funcargs.values() if isinstance(value, Path)]
    call_in_lab(pyfuncitem, lab.close, [*visible, *places])
    return True


# --- what is said of it


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A guest that was lost is an error and no failure; whatever went wrong names the folder."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, Elsewhere):
        adopt(report, call.excinfo.value.report)
        return report
    if call.excinfo is not None and isinstance(call.excinfo.value, MachineryError):
        make_error(report)
    if report.failed:
        account = _account(item)
        if account:
            report.sections.append((SECTION, account))
    return report


def _account(item: pytest.Item) -> str:
    """Where there is more to see."""
    if _FREEPAGE in item.stash:
        return item.stash[_FREEPAGE].account()
    return f"folder of this test: {item.stash[_FOLDER]}" if _FOLDER in item.stash else ""
