"""The HTTP face on a real port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from face import PASSWORD, Router, served

from paradrop.backend.pdfcd import accounts


@pytest.fixture
def router(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router with the users admin, operator and viewer, each with the role of that name."""
    monkeypatch.setattr(accounts, "SCRYPT_COST", 16)
    with served() as found:
        for name in ("admin", "operator", "viewer"):
            found.rest.accounts.set_user(name, PASSWORD, name)
        yield found
