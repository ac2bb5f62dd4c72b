"""The demo does what it promises, and leaves nothing behind, also when it is stopped half-way."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parent.parent / "scripts" / "demo"
NO_ARCHIVE = re.compile(r"Failed to fetch|Could not resolve|Unable to locate package|Could not connect|no Docker engine"
                        r"|Could not find a version|Temporary failure in name resolution")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a machine with a Docker engine"),
]


@contextmanager
def demo() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([DEMO], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def directory(output: str) -> Path:
    found = re.search(r"^Firmware for a router, from end to end, in (\S+)$", output, re.MULTILINE)
    assert found, output
    return Path(found[1])


def processes_of(place: Path) -> list[str]:
    """Return the command lines of the processes that work in PLACE."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue  # it has ended, or is a thread of the kernel
        if str(place) in words or where.startswith(str(place)):
            found.append(words)
    return found


def check_nothing_left(output: str) -> None:
    place = directory(output)
    assert not place.exists()
    assert not processes_of(place)
    assert place.name not in Path("/proc/mounts").read_text()
    assert not list(Path("/sys/fs/cgroup").rglob(f"{place.name}*"))


def test_the_demo_keeps_its_promises() -> None:
    with demo() as process:
        output, _ = process.communicate(timeout=300)
    if process.returncode and NO_ARCHIVE.search(output):
        pytest.skip("no Debian archive or package index can be reached, or no engine can run")
    assert process.returncode == 0, output
    assert output.rstrip().endswith("All as promised.")
    assert re.findall(r"^ +Hello World.*?(from Paradrop|version 2)", output, re.MULTILINE) == [
        "from Paradrop", *["version 2"] * 5]
    check_nothing_left(output)


def test_a_stopped_demo_leaves_nothing_behind() -> None:
    with demo() as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "Hello World from" in line:  # now there are keys, agents, two machines, a runtime with a chute
                assert processes_of(directory(output))
                os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    if process.returncode not in (0, 143) and NO_ARCHIVE.search(output):
        pytest.skip("no Debian archive or package index can be reached, or no engine can run")
    assert process.returncode == 143, output
    check_nothing_left(output)
