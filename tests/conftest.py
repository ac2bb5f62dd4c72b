"""How tests are shared out when two processes run them (``scripts/test`` without arguments).

A file stays with one process, for what its tests share. All files of the lab are one: emulated machines keep a core
busy, and most other tests wait for something most of their time. The lab begins at once, then files with slow tests,
so that both processes end at about the same time.
"""

import os

import pytest
from xdist.scheduler import LoadFileScheduling


class Sides(LoadFileScheduling):
    """Files, and the lab, as the parts that are shared out."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/lab" if file.startswith("tests/lab/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sides | None:
    """Take the place of ``--dist loadfile``."""
    return Sides(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the lab first, then files with slow tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (not item.nodeid.startswith("tests/lab/"), item.path not in slow))
