"""The time that a lock leaves for what is done under it, and ``with_lock``, which brings both."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import fussy
from fussy import cronlock

from .test_cronlock import holder, is_free, path

__all__ = ["path"]


def handler() -> object:
    return signal.getsignal(signal.SIGALRM)


@pytest.fixture(autouse=True)
def no_alarm_left() -> Iterator[None]:
    before = handler()
    yield
    assert handler() == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_timeout_while_it_is_held(path: Path) -> None:
    lock = cronlock.Lock(path)
    started = time.monotonic()
    with pytest.raises(cronlock.Timeout, match=f"cannot go on: {path} allows 0.1 s, and they are over"), lock:
        lock.set_timeout(0.1)
        time.sleep(10)
    assert 0.1 <= time.monotonic() - started < 5
    assert is_free(path)


def test_timeout_without_holding_it(path: Path) -> None:
    lock = cronlock.Lock(path)
    lock.set_timeout(0.1)
    with pytest.raises(cronlock.Timeout):
        time.sleep(10)
    assert not path.exists()
    lock.set_timeout(0.1)
    lock.cancel_timeout()
    lock.cancel_timeout()
    time.sleep(0.2)


def test_leaving_the_lock_cancels_the_timeout(path: Path) -> None:
    lock = cronlock.Lock(path)
    with lock:
        lock.set_timeout(10)
        lock.set_timeout(0.5)
        with lock:
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    time.sleep(0.6)


def test_the_timeout_is_no_oserror(path: Path) -> None:
    lock = cronlock.Lock(path)
    with pytest.raises(cronlock.Timeout), lock:
        lock.set_timeout(0.1)
        with contextlib.suppress(OSError):
            time.sleep(10)


def test_other_alarms_come_back(path: Path) -> None:
    rang: list[int] = []

    def ring(signum: int, frame: FrameType | None) -> None:
        rang.append(signum)

    lock = cronlock.Lock(path)
    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with lock:
            lock.set_timeout(0.1)
            lock.cancel_timeout()
            assert handler() == ring
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1
            lock.set_timeout(0.1)
            with pytest.raises(cronlock.Timeout):
                time.sleep(10)
        assert rang == []
        time.sleep(1)
        assert rang == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, old)


def test_the_sooner_of_two_timeouts_counts(tmp_path: Path) -> None:
    outer, inner = cronlock.Lock(tmp_path / "outer"), cronlock.Lock(tmp_path / "inner")
    started = time.monotonic()
    with pytest.raises(cronlock.Timeout, match="outer"), outer:
        outer.set_timeout(0.2)
        with inner:
            inner.set_timeout(5)
        with inner:
            inner.set_timeout(5)
            time.sleep(10)
    assert time.monotonic() - started < 4
    with pytest.raises(cronlock.Timeout, match="outer"), outer:
        outer.set_timeout(1)
        with pytest.raises(cronlock.Timeout, match="inner"), inner:
            inner.set_timeout(0.1)
            time.sleep(10)
        time.sleep(10)


def test_timeouts_cancelled_in_the_wrong_order(tmp_path: Path) -> None:
    first, second = cronlock.Lock(tmp_path / "first"), cronlock.Lock(tmp_path / "second")
    before = handler()
    try:
        first.set_timeout(1)
        second.set_timeout(0.2)
        first.cancel_timeout()
        with pytest.raises(cronlock.Timeout, match="second"):
            time.sleep(10)
        time.sleep(1)  # the alarm of the first comes back and means nothing
    finally:
        signal.signal(signal.SIGALRM, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("duration", [0, -1, float("inf"), float("nan")])
def test_a_timeout_must_be_a_positive_time(path: Path, duration: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        cronlock.Lock(path).set_timeout(duration)


def test_only_the_main_thread_has_timeouts(path: Path) -> None:
    raised: list[Exception] = []

    def other() -> None:
        try:
            with cronlock.Lock(path) as lock:
                lock.set_timeout(1)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert "only the main thread" in str(raised[0])
    assert is_free(path)


def test_a_thread_that_leaves_the_lock_keeps_the_main_threads_timeout(path: Path) -> None:
    lock = cronlock.Lock(path)
    lock.set_timeout(10)

    def other() -> None:
        with lock:
            pass

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    lock.cancel_timeout()


def test_with_lock(tmp_path: Path) -> None:
    @fussy.with_lock("job.lock", directory=tmp_path)
    def job(one: int, *, two: int = 2) -> int:
        """A job."""
        assert not is_free(tmp_path / "job.lock")
        return one + two

    assert not list(tmp_path.iterdir())
    assert job(1) == 3
    assert (job.__name__, job.__doc__) == ("job", "A job.")
    with holder(tmp_path / "job.lock"), pytest.raises(cronlock.Busy):
        job(1)
    assert job(1, two=5) == 6


def test_with_lock_keeps_its_file_where_temporary_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @cronlock.with_lock("test.lock", timeout=20)
    def main() -> float:
        return signal.getitimer(signal.ITIMER_REAL)[0]

    assert 0 < (main() or 0) <= 20
    assert (tmp_path / "test.lock").exists()
    with pytest.raises(ValueError, match="give its directory apart"):
        cronlock.with_lock("../test.lock")


def test_with_lock_fails_quietly_if_it_shall(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @cronlock.with_lock("job.lock", tmp_path, quiet_fail=True)
    def job(other: Path) -> str:
        with cronlock.Lock(other):
            return "done"

    caplog.set_level("DEBUG", "fussy")
    assert job(tmp_path / "other") == "done"
    with holder(tmp_path / "job.lock"):
        assert job(tmp_path / "other") is None
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    with holder(tmp_path / "other"), pytest.raises(cronlock.Busy):
        job(tmp_path / "other")  # its own lock is not this one: that is not for us to hide


def test_a_quiet_lock_in_a_with_statement(path: Path) -> None:
    lock = cronlock.Lock(path, quiet_fail=True)
    assert lock.quiet_fail
    ran = False
    with holder(path), contextlib.suppress(cronlock.Busy), lock:
        ran = True
    assert not ran


def test_with_lock_limits_the_time_of_each_outermost_call(tmp_path: Path) -> None:
    @cronlock.with_lock("job.lock", tmp_path, timeout=0.5)
    def job(depth: int) -> None:
        time.sleep(0.2)
        job(depth - 1)

    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(cronlock.Timeout):
            job(50)
        assert time.monotonic() - started < 5
    assert is_free(tmp_path / "job.lock")


def test_the_documented_job(tmp_path: Path) -> None:
    """A cron job that hangs: its successors find it busy, then it ends by itself and gives the lock back."""
    script = tmp_path / "job.py"
    script.write_text("""
import time
from fussy import with_lock

@with_lock('test.lock', timeout=1)
def main():
    print("held", flush=True)
    time.sleep(60)

main()
""")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    first = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=30,
                                check=False)
        assert f"process {first.pid} holds it" in second.stderr
        assert "fussy.cronlock.Timeout: cannot go on" in first.communicate(timeout=30)[1]
    finally:
        first.kill()
        first.wait(10)
    assert is_free(tmp_path / "test.lock")


if shutil.which("flock") is None:
    pytest.skip("flock is missing: install util-linux", allow_module_level=True)
