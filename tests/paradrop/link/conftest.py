"""A router with its HTTP face, before servers that do as they are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from face import Router, served

from paradrop.backend.pdfcd import accounts
from paradrop.lib import settings


@pytest.fixture
def face(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router without accounts; the firmware's files lie in ``home`` too."""
    monkeypatch.setattr(accounts, "SCRYPT_COST", 16)
    place_firmware(home)
    with served() as found:
        yield found


def place_firmware(home: Path) -> None:
    """Put the firmware's keyring, settings and releases below HOME, where there is none yet."""
    for name, place in (("TARGET", "firmware"), ("KEYRING", "fussy/keys"), ("SETTINGS", "fussy/update.toml")):
        settings.addSetting(f"FIRMWARE_{name}", str(home / place))
