"""Descriptions, images and targets of the build side's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fussy.conftest import keys
from tests.pdimage.workshop import Workshop, python_packages

__all__ = ["keys"]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """See :class:`Workshop`."""
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay with the Python packages that the runtime needs."""
    return python_packages(tmp_path_factory.mktemp("packages"))
