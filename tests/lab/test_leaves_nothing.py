"""Whatever dies while an environment starts, nothing of it is left: no process, namespace, bridge, lease or mount."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdimage.lab import brctl, ending, plugin, temporary

pytestmark = pytest.mark.lab

PDIMAGE = Path(sys.executable).with_name("pdimage")
DESCRIPTION = """
nets: {wan: {type: nat, dhcp: {}}, lan: {type: bridge}}
domains:
  one: {nics: [{net: wan}, {net: lan}], memory: 256}
  two: {nics: [{net: wan}, {net: lan}], memory: 256}
"""

# A test that never ends.
KILLED = """
import time

import pytest


@pytest.mark.lab(memory=256)
def test_something(router):
    time.sleep(600)
"""


class Environment:
    """An environment in DIRECTORY, used with the command line; whatever commands make is in this directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.leases = directory, directory / "leases"
        self.variables = {**os.environ, "PDIMAGE_LAB_LEASE_DIR": str(self.leases),
                          "PDIMAGE_LAB_WORK_DIR": str(directory)}
        (directory / "LagoInitFile").write_text(DESCRIPTION)

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([PDIMAGE, "lab", *arguments], cwd=self.directory, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, env=self.variables)

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.popen(*arguments)
        said = process.communicate(timeout=600)[0]
        assert process.returncode == code, said
        return said

    def processes(self) -> dict[int, str]:
        """Return what runs with this directory in its command line or as its working directory, by process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.directory) in line or os.readlink(entry / "cwd").startswith(str(self.directory)):
                    found[int(entry.name)] = line
        return found

    def await_machine(self, name: str, starting: subprocess.Popen[str]) -> int:
        """Wait until QEMU runs for the machine NAME, which STARTING starts; return its process id."""
        while starting.poll() is None:
            for pid, line in self.processes().items():
                if line.startswith(f"qemu-system-x86_64 -name {name},"):
                    return pid
            time.sleep(0.02)
        raise AssertionError(starting.communicate()[0])

    def namespaces(self) -> set[str]:
        """Return the network namespaces of what runs here."""
        found = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/ns/net"))
        return found - {os.readlink("/proc/self/ns/net")}

    def leased(self) -> list[Path]:
        """Return the leases of subnets that are held."""
        return list(self.leases.glob("*.lease"))

    def check_nothing_runs(self, namespaces: set[str]) -> None:
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.processes() == {}
        left = set()
        for entry in Path("/proc").glob("[0-9]*/ns/net"):
            with contextlib.suppress(OSError):
                left.add(os.readlink(entry))
        assert namespaces and not namespaces & left
        assert not any(brctl.exists(name) for name in ("br-wan", "br-lan"))
        assert str(self.directory) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def environment(lab_directory: Path) -> Iterator[Environment]:
    if reason := plugin.missing():
        pytest.skip(reason)
    made = Environment(lab_directory)
    yield made
    for pid in made.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_a_machine(environment: Environment, starting: subprocess.Popen[str]) -> None:
    os.kill(environment.await_machine("two", starting), signal.SIGKILL)


def kill_the_keeper(environment: Environment, starting: subprocess.Popen[str]) -> None:
    os.kill(int((environment.directory / ".lab/virt/keeper.pid").read_text().split()[0]), signal.SIGKILL)


def kill_pdimage(environment: Environment, starting: subprocess.Popen[str]) -> None:
    starting.kill()


def interrupt_pdimage(environment: Environment, starting: subprocess.Popen[str]) -> None:
    starting.send_signal(signal.SIGINT)


def test_a_start_that_fails_leaves_nothing_and_can_be_tried_again(environment: Environment) -> None:
    environment.run("init")
    ways: dict[Callable[[Environment, subprocess.Popen[str]], None], tuple[str, int]] = {
        kill_a_machine: ("pdimage lab start: cannot ", 1), kill_the_keeper: ("pdimage lab start: ", 1),
        kill_pdimage: ("", -signal.SIGKILL), interrupt_pdimage: ("", -signal.SIGINT)}
    for kill, (told, code) in ways.items():
        starting = environment.popen("start")
        environment.await_machine("two", starting)
        namespaces = environment.namespaces()
        kill(environment, starting)
        said = starting.communicate(timeout=120)[0]
        assert starting.returncode == code, said
        assert said.startswith(told) and "Traceback" not in said, said
        environment.check_nothing_runs(namespaces)

    environment.run("start")
    namespaces = environment.namespaces()
    assert environment.run("ssh", "one", "ping -c 1 two >/dev/null && echo there") == "there\n"
    environment.run("destroy", "--yes")
    environment.check_nothing_runs(namespaces)
    assert not (environment.directory / ".lab").exists()
    assert environment.leased() == []


@pytest.mark.parametrize("number", ending.SIGNALS)
def test_power_cuts_that_a_signal_ends_leave_nothing(environment: Environment, number: signal.Signals) -> None:
    cutting = environment.popen("powercut", "--router")
    environment.await_machine("router", cutting)
    namespaces = environment.namespaces()
    cutting.send_signal(number)

    assert (cutting.communicate(timeout=120)[0], cutting.returncode) == ("", -number)
    environment.check_nothing_runs(namespaces)
    assert list(environment.directory.glob("lab-env-*")) == []
    assert environment.leased() == []


def test_a_pytest_that_is_killed_leaves_nothing_that_runs_and_the_next_removes_its_files(
        environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = environment.directory / "test_killed.py"
    killed.write_text(KILLED)
    running = subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-m", "lab", killed], stdout=subprocess.PIPE,
                               env=environment.variables, text=True, cwd=environment.directory)
    environment.await_machine("router", running)
    namespaces = environment.namespaces()
    running.kill()
    running.communicate(timeout=60)
    environment.check_nothing_runs(namespaces)

    assert len(list(environment.directory.glob("lab-env-*/prefix/uuid"))) == 1
    monkeypatch.setenv("PDIMAGE_LAB_WORK_DIR", str(environment.directory))
    temporary.sweep()
    assert list(environment.directory.glob("lab-env-*")) == []
