"""A router with its HTTP face, before servers that do as they are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from face import Router, served
from firmwareplaces import place_firmware

from paradrop.backend.pdfcd import accounts


@pytest.fixture
def face(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router without accounts; the firmware's files lie in ``home`` too."""
    monkeypatch.setattr(accounts, "SCRYPT_COST", 16)
    place_firmware(home)
    with served() as found:
        yield found
