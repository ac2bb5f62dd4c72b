"""What tests of the runtime share."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from engine import ROOTS, engine, engine_of_session, router  # noqa: F401 (fixtures)

from paradrop.lib import settings

# The time of one example says nothing on a machine that does other work too.
hypothesis.settings.register_profile(
    "runtime", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("runtime")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all tests there is no process, mount, network namespace or engine's directory of theirs.

    Others may use the machine, so ours are known by our directories and our process id. What other tests have begun
    before, and share until the end, does not count.
    """
    def ours() -> set[str]:
        marks = [str(tmp_path_factory.getbasetemp()), *map(str, ROOTS)]
        return {*processes(marks), *mounts(marks), *(str(root) for root in ROOTS if root.exists()),
                *(name for name in namespaces() if str(os.getpid()) in name or f"/tmp/{name}" in marks)}

    before = ours()
    yield
    for _ in range(100):
        left = ours() - before
        if not left:
            return
        time.sleep(0.1)  # what was told to end takes its time
    raise AssertionError(f"left behind: {sorted(left)}")


def namespaces() -> set[str]:
    place = Path("/run/netns")
    return {path.name for path in place.iterdir()} if place.is_dir() else set()


def processes(marks: list[str]) -> list[str]:
    """Return the processes, but this one, that were started with, or work in, a directory of ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = f"{words} {(place / 'cwd').readlink()}"
        except OSError:
            continue
        if int(place.name) != os.getpid() and any(mark in known for mark in marks):
            found.append(f"{place.name} {words}")
    return found


def mounts(marks: list[str]) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if any(mark in line for mark in marks)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A temporary directory below which the settings put every file of the runtime; settings are put back after."""
    before = {name: value for name, value in vars(settings).items() if name.isupper()}
    settings.relocate(tmp_path)
    yield tmp_path
    for name in [name for name in vars(settings) if name.isupper() and name not in before]:
        delattr(settings, name)
    vars(settings).update(before)
