"""The lab for pytest: the marker ``lab``, and fixtures that give a test virtual machines.

Tests with the marker run only when asked for (``-m lab``). What a test's machines consist of is said by the marker::

    @pytest.mark.lab("routers.yaml")        a LagoInitFile beside the test (default: one router of the minimal flavour)
    @pytest.mark.lab(flavour="router")      that one router, of another flavour, or with other keys of a machine

``lab`` is the started environment, a :class:`pdimage.lab.Prefix`; ``router`` its machine of that name, or the first.
Tests of a module with equal markers share an environment; each begins where the first began: a snapshot taken once all
machines were up. Whatever happens to pytest, its machines end with it.
"""

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pdimage.lab.machine import VM
    from pdimage.lab.prefix import Prefix

START = "start"
_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mmdebstrap": "mmdebstrap", "ssh":
             "openssh-client", "dnsmasq": "dnsmasq-base", "unshare": "util-linux", "ip": "iproute2",
             "iptables": "iptables"}
_shared = pytest.StashKey[dict[Any, "Prefix"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our option."""
    parser.addoption("--lab-costs", action="store_true", help="print what virtual machines cost")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the machines cost, if asked for."""
    from pdimage.lab import costs

    if config.getoption("lab_costs") and (lines := list(costs.lines())):
        terminalreporter.section("costs of the lab")
        for line in lines:
            terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line("markers", "lab(description, **machine): needs virtual machines (off unless asked for with "
                            "-m lab)")
    config.stash[_shared] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of the lab unless they were asked for."""
    if re.search(r"\blab\b", config.getoption("markexpr", "") or ""):
        return
    out = [item for item in items if item.get_closest_marker("lab")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if not item.get_closest_marker("lab")]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End all environments."""
    from pdimage.lab import temporary

    for prefix in config.stash[_shared].values():
        temporary.discard(prefix)


def missing() -> str | None:
    """Return why no virtual machine can run here, None if it can be tried."""
    lacking = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    return f"virtual machines need the Debian packages {' '.join(lacking)}" if lacking else None


@pytest.fixture(scope="session")
def lab_configure() -> Callable[[dict[str, Any]], object]:
    """What changes the configuration of an environment before it is made: nothing. For suites to put their own here."""
    return lambda conf: None


@pytest.fixture(scope="session")
def lab_prepare() -> Callable[["Prefix"], object]:
    """What is done to an environment once it is up, before what tests begin with is kept: nothing. As above."""
    return lambda prefix: None


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_configure: Callable[[dict[str, Any]], object],
        lab_prepare: Callable[["Prefix"], object]) -> "Prefix":
    """The environment that the test's marker describes, with all machines up."""
    from fussy.errors import SystemSetup
    from pdimage.lab import temporary

    if reason := missing():
        pytest.skip(reason)
    key = (request.path, *_wanted(request.node))
    shared = request.config.stash[_shared]
    if key in shared and shared[key].virt_env.keeper.alive():
        shared[key].revert_snapshots(START)
        return shared[key]
    for other in list(shared):  # memory for those that are needed now
        temporary.discard(shared.pop(other))
    try:
        shared[key] = _started(*key, lab_configure, lab_prepare)
    except SystemSetup as error:
        pytest.skip(str(error))
    return shared[key]


@pytest.fixture
def router(lab: "Prefix") -> "VM":
    """The machine named ``router``, or else the first."""
    vms = lab.virt_env.get_vms()
    return vms.get("router") or next(iter(vms.values()))


@pytest.fixture
def lab_directory() -> Iterator[Path]:
    """A directory on disk (not in memory) for what a test of the lab makes."""
    from pdimage.lab import temporary

    path = temporary.directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _wanted(item: pytest.Item) -> tuple[str, str]:
    """Return the description that the markers of a test name, and the keys of its machine, as text."""
    marker = item.get_closest_marker("lab")
    description = marker.args[0] if marker and marker.args else ""
    return description, repr(sorted((marker.kwargs if marker else {}).items()))


def _started(directory: Path, description: str, machine: str, configure: Callable[[dict[str, Any]], object],
             prepare: Callable[["Prefix"], object]) -> "Prefix":
    from pdimage.lab import description as reading
    from pdimage.lab import temporary

    if description:
        conf = reading.load(directory.parent / description)
    else:
        keys = dict(ast.literal_eval(machine))
        conf = {"nets": {"wan": {"type": "nat"}}, "domains": {"router": {"nics": [{"net": "wan"}], **keys}}}
    prefix = temporary.make()
    try:
        prefix.initialize()
        configure(conf)
        prefix.virt_conf(conf)
        prefix.start()
        prepare(prefix)
        prefix.create_snapshots(START)
    except BaseException:
        temporary.discard(prefix)
        raise
    return prefix
