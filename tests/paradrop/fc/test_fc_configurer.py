"""The queue: order, one at a time, and an answer to everybody in any case."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paradrop.backend.fc import configurer as module
from paradrop.backend.fc import journal, updateObject
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.fc.configurer import PDConfigurer
from paradrop.backend.fc.updateObject import UpdateObject
from paradrop.lib import settings


class Done:
    """What the callbacks of updates were told, in order."""

    def __init__(self) -> None:
        self.results: list[tuple[str, bool, str]] = []
        self.changed = threading.Condition()

    def __call__(self, update: UpdateObject) -> None:
        assert update.result is not None
        with self.changed:
            self.results.append((update.name, update.result["success"], update.result["message"]))
            self.changed.notify_all()

    def wait(self, count: int) -> list[tuple[str, bool, str]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.results) >= count, 10)
        return self.results


class Note(UpdateObject):
    """An update that does nothing, or raises if its name says so."""

    busy = 0

    def execute(self) -> None:
        Note.busy += 1
        assert Note.busy == 1, "two updates at once"
        try:
            if self.name == "bad":
                raise ZeroDivisionError("a bug")
            if self.name != "silent":
                self.complete(success=True, message=self.updateType)
        finally:
            Note.busy -= 1


@pytest.fixture
def queue(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PDConfigurer]:
    ChuteStorage.chuteList = {}
    monkeypatch.setitem(updateObject.UPDATE_CLASSES, "NOTE", Note)
    monkeypatch.setattr(settings, "PDCONFD_ENABLED", False)
    found = PDConfigurer(ChuteStorage(), None)
    yield found
    found.stop()


@pytest.fixture
def worker(queue: PDConfigurer) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=queue.performUpdates, daemon=True)
    yield thread
    queue.stop()
    if thread.ident is not None:
        thread.join(10)
        assert not thread.is_alive()


def test_updates_are_carried_out_in_order(queue: PDConfigurer, worker: threading.Thread) -> None:
    done = Done()
    for number in range(20):
        queue.updateList(updateClass="NOTE", updateType="x", name=str(number), func=done)
    worker.start()
    assert [name for name, *_ in done.wait(20)] == [str(number) for number in range(20)]


@pytest.mark.parametrize("update", [
    {"updateClass": "NOTE", "name": "bad"}, {"updateClass": "NOTE", "name": "silent"},
    {"updateClass": "NONE", "name": "x"}, {"name": "x"},
    {"updateClass": "CHUTE", "updateType": "dance", "name": "x"},
    {"updateClass": "CHUTE", "updateType": "restart", "name": "x"},
    {"updateClass": "CHUTE", "updateType": "create", "name": "x"},
    {"updateClass": "CHUTE", "updateType": "create", "name": "__PARADROP__"},
    {"updateClass": "CHUTE", "updateType": "create", "name": None, "net": 5},
], ids=str)
def test_everybody_is_answered_and_the_queue_goes_on(queue: PDConfigurer, worker: threading.Thread,
                                                     update: Mapping[str, Any]) -> None:
    done = Done()
    queue.updateList(**update, func=done)
    queue.updateList(updateClass="NOTE", updateType="x", name="next", func=done)
    worker.start()
    (_, success, message), following = done.wait(2)
    assert not success and message
    assert following == ("next", True, "x")


def test_a_callback_that_raises_stops_nobody(queue: PDConfigurer, worker: threading.Thread) -> None:
    def raises(update: UpdateObject) -> None:
        raise RuntimeError("gone")

    done = Done()
    queue.updateList(updateClass="NOTE", name="x", func=raises)
    queue.updateList(updateClass="NOTE", updateType="x", name="next", func=done)
    worker.start()
    assert done.wait(1) == [("next", True, "x")]


def test_bounced_updates_do_nothing(queue: PDConfigurer, worker: threading.Thread,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FC_BOUNCE_UPDATE", "bounced")
    done = Done()
    queue.updateList(updateClass="CHUTE", updateType="create", name="x", func=done)
    worker.start()
    assert done.wait(1) == [("x", True, "bounced")]
    assert journal.unfinished() == {} and ChuteStorage().getChuteList() == []


def test_going_down_answers_those_who_wait(queue: PDConfigurer, worker: threading.Thread) -> None:
    done = Done()
    queue.stop()
    queue.updateList(updateClass="NOTE", name="late", func=done)
    worker.start()
    assert [(name, success) for name, success, _ in done.wait(1)] == [("late", False)]


def test_clearing_the_queue_answers_too(queue: PDConfigurer) -> None:
    done = Done()
    queue.updateList(updateClass="NOTE", name="a", func=done)
    queue.updateList(updateClass="NOTE", name="b", func=done)
    assert (queue.getNextUpdate() or {})["name"] == "a"
    queue.clearUpdateList()
    assert [(name, success) for name, success, _ in done.results] == [("b", False)]
    assert queue.getNextUpdate() is None


def test_restarts_come_first_and_in_order(queue: PDConfigurer, worker: threading.Thread,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    done = Done()
    restarts = [{"updateClass": "NOTE", "updateType": "restart", "name": name, "func": done} for name in "abc"]
    monkeypatch.setattr(module.restart, "reloadChutes", lambda: restarts)
    queue.updateList(updateClass="NOTE", updateType="x", name="asked", func=done)
    worker.start()
    assert [name for name, *_ in done.wait(4)] == ["a", "b", "c", "asked"]


def test_a_failing_start_up_does_not_keep_updates_from_running(queue: PDConfigurer, worker: threading.Thread,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(module.restart, "reloadChutes", broken)
    done = Done()
    queue.updateList(updateClass="NOTE", updateType="x", name="asked", func=done)
    worker.start()
    done.wait(1)


def test_a_request_cannot_set_what_is_not_its_own(home: Path) -> None:
    ChuteStorage.chuteList = {}
    update = updateObject.parse({
        "updateClass": "CHUTE", "updateType": "create", "name": "x", "plans": 1, "chuteStor": 2, "failure": 3,
        "execute": 4, "old": 5, "state": "frozen", "warning": "w", "_cache": {}, "__class__": 6, "result": {"a": 1}})
    assert (len(update.plans), update.failure, update.old, update.result) == (0, None, None, None)
    assert isinstance(update.chuteStor, ChuteStorage) and callable(update.execute)
    assert update.new.state == "running" and update.new.warning is None and update.new._cache == {}
    assert repr(update).startswith("<Update(CHUTE) :: x - create @ ") and str(update) == "<Update(CHUTE) :: x>"


def test_progress_goes_on_when_nobody_reads_any_more(home: Path) -> None:
    class Broken:
        request = property(lambda self: self)

        def write(self, text: str) -> None:
            raise BrokenPipeError

    update = UpdateObject({"updateClass": "NOTE", "name": "x", "pkg": Broken()})
    update.progress("one")
    update.progress("two")


def test_complete_counts_once(home: Path) -> None:
    done = Done()
    update = UpdateObject({"updateClass": "NOTE", "name": "x", "func": done})
    update.complete(success=True, message="first")
    update.complete(success=False, message="second")
    assert done.results == [("x", True, "first")]
