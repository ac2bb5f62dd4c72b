import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.utils import restart


@pytest.fixture
def store(home: Path) -> Iterator[ChuteStorage]:
    storage = ChuteStorage()
    storage.clearChuteStorage()
    for name, state, warning in [("runs", "running", None), ("fails", "running", None), ("stopped", "stopped", None),
                                 ("retry", "stopped", "old warning"), ("again", "stopped", "old warning")]:
        storage.saveChute(Chute({"name": name, "state": state, "warning": warning}))
    yield storage
    storage.clearChuteStorage()


def answer(monkeypatch: pytest.MonkeyPatch, *answers: list[dict[str, Any]] | None) -> None:
    left = [None if one is None else json.dumps(one) for one in answers]
    monkeypatch.setattr(restart, "waitSystemUp", lambda: left.pop(0))
    monkeypatch.setattr(restart.time, "sleep", lambda seconds: None)


def section(comment: str | None, success: bool) -> dict[str, Any]:
    return {"type": "interface", "name": "x", "comment": comment, "success": success}


def test_stops_come_first_and_nobody_else_is_touched(store: ChuteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    status = [section("runs", True), section("fails", False), section("fails", False), section("again", False),
              section("unknown", False), section(settings.RESERVED_CHUTE, False), section(None, False)]
    answer(monkeypatch, None, None, status)
    updates = restart.reloadChutes()
    assert [(one["updateType"], one["name"], "warning" in one) for one in updates] == [
        ("stop", "fails", True), ("restart", "runs", False), ("restart", "retry", False)]
    assert all(one["updateClass"] == "CHUTE" and one["func"] is restart.updateStatus for one in updates)


def test_nothing_without_pdconfd(store: ChuteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PDCONFD_ENABLED", False)
    assert restart.reloadChutes() == []


def test_a_pdconfd_that_never_answers_is_not_waited_for_for_ever(
        store: ChuteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PDCONFD_START_TIMEOUT", 0)
    answer(monkeypatch, *[None] * 9)
    assert {one["updateType"] for one in restart.reloadChutes()} == {"restart"}


def test_a_failed_restart_is_noted(store: ChuteStorage) -> None:
    for name, result in [("runs", {"success": False, "message": "No radio."}), ("fails", None),
                         ("gone", {"success": False}), ("retry", {"success": True})]:
        restart.updateStatus(SimpleNamespace(name=name, result=result))
    chutes = {str(chute.name): chute for chute in ChuteStorage().getChuteList()}
    assert chutes["runs"].state == chutes["fails"].state == "stopped"
    assert "No radio." in str(chutes["runs"].warning)
    assert chutes["retry"].warning == "old warning"
    assert "gone" not in chutes
