"""Locks against real processes: other Pythons, flock(1), killed holders, planted files."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import cronlock, errors

HOLDER = """
import sys, time
from fussy import cronlock
with cronlock.Lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.lock"


@contextlib.contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program that prints a line when it is ready and ends when its standard input does."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
            process.stdin.close()
            process.wait(10)
        finally:
            process.kill()


def holder(path: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return running(sys.executable, "-c", HOLDER, str(path))


def is_free(path: Path) -> bool:
    """Ask flock(1)."""
    return subprocess.run(["flock", "-n", path, "true"], timeout=10, check=False).returncode == 0


@pytest.mark.parametrize("kind", [cronlock.Lock, cronlock.Flock])
def test_a_second_process_is_told_who_holds_it(path: Path, kind: type[cronlock.Flock]) -> None:
    with holder(path) as process:
        with pytest.raises(cronlock.Busy, match=f"cannot lock {path}: process {process.pid} holds it") as caught, \
                kind(path):
            pytest.fail("two at once")
        assert caught.value.pid == process.pid
        assert isinstance(caught.value, IOError)
        assert isinstance(caught.value, errors.Busy)
        assert caught.value.filename == str(path)
    with kind(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert path.read_bytes() == b""


def test_busy_travels_between_processes() -> None:
    busy = cronlock.Busy(11, "cannot lock it: process 7 holds it", "it")
    busy.pid = 7
    copy = pickle.loads(pickle.dumps(busy))
    assert (str(copy), copy.pid, copy.exit_code) == ("cannot lock it: process 7 holds it", 7, 5)


def test_a_killed_holder_leaves_nothing_stale(path: Path) -> None:
    with holder(path) as process:
        process.kill()
        process.wait(10)
        assert path.read_text() == f"{process.pid}\n"
        with cronlock.Lock(path):
            pass


def test_the_file_stays(path: Path) -> None:
    """Unlinking it lets one process lock the old file and another a new one."""
    with cronlock.Lock(path):
        before = path.stat().st_ino
    assert path.stat().st_ino == before
    assert path.stat().st_mode & 0o777 == 0o600


def test_flock_1_and_we_keep_each_other_out(path: Path) -> None:
    with cronlock.Lock(path):
        assert not is_free(path)
    assert is_free(path)
    # A pid that a killed holder has left is not the holder's: flock(1) writes none.
    with holder(path) as process:
        process.kill()
        process.wait(10)
    with running("flock", str(path), "sh", "-c", "echo held; read line"), \
            pytest.raises(cronlock.Busy, match="another process holds it") as caught, cronlock.Lock(path):
        pytest.fail("two at once")
    assert caught.value.pid is None


@pytest.mark.parametrize("text", ["", "0\n", "-1\n", "x" * 100, "9" * 30, "\xb2"])
def test_nonsense_in_the_file_names_nobody(path: Path, text: str) -> None:
    path.write_text(text)
    with running("flock", str(path), "sh", "-c", "echo held; read line"), \
            pytest.raises(cronlock.Busy, match="another process"), cronlock.Lock(path):
        pytest.fail("two at once")
    with cronlock.Lock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_never_two_at_once(path: Path, tmp_path: Path) -> None:
    """Eight processes fight for the lock, and each is killed while it may hold it; the section is never shared."""
    fighter = """
import os, random, sys, time
from fussy import cronlock
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while True:
    try:
        with cronlock.Lock(sys.argv[1]):
            os.write(log, b"+%d\\n" % os.getpid())
            time.sleep(0.001)
            os.write(log, b"-%d\\n" % os.getpid())
    except cronlock.Busy:
        time.sleep(random.random() / 1000)
"""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(8):
            processes.append(subprocess.Popen([sys.executable, "-c", fighter, path, tmp_path / "log"]))
            time.sleep(0.1)
        for process in processes:
            time.sleep(0.1)
            process.kill()
            process.wait(10)
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len({line for line in lines if line.startswith("+")}) > 1
    # Whoever leaves was the last that entered; a killed process never leaves.
    assert [line for line, before in zip(lines, ["", *lines], strict=False)
            if line.startswith("-") and before != "+" + line[1:]] == []
    assert is_free(path)


def test_programs_that_the_holder_starts_do_not_keep_it(path: Path) -> None:
    script = HOLDER.replace('print("held"', 'import subprocess; sleeper = subprocess.Popen(["sleep", "60"], '
                            'close_fds=False, stdout=subprocess.DEVNULL); print(sleeper.pid, flush=True); print("held"')
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        try:
            process.stdout.readline()
            process.kill()
            process.wait(10)
            assert Path(f"/proc/{sleeper}").exists()
            assert is_free(path)
        finally:
            os.kill(sleeper, signal.SIGKILL)


def test_a_forked_child_neither_gives_it_back_nor_takes_part(path: Path) -> None:
    lock = cronlock.Lock(path)
    with lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with contextlib.suppress(cronlock.Busy), lock:
                    os._exit(2)
                lock.__exit__(None, None, None)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not is_free(path)
        assert path.read_text() == f"{os.getpid()}\n"
    assert is_free(path)


def test_the_holding_thread_may_enter_again(path: Path) -> None:
    lock = cronlock.Lock(path)
    with lock:
        with lock:
            pass
        assert not is_free(path)
    assert is_free(path)
    with lock:
        assert not is_free(path)


def test_nobody_else_in_the_process_may(path: Path) -> None:
    lock = cronlock.Lock(path)
    outcome: list[object] = []

    def other() -> None:
        try:
            with lock:
                outcome.append("entered")
        except cronlock.Busy as busy:
            outcome.append(busy.pid)

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        with pytest.raises(cronlock.Busy), cronlock.Lock(path):
            pass
    assert outcome == [os.getpid()]
    assert is_free(path)


def test_leaving_without_entering_is_a_mistake(path: Path) -> None:
    with pytest.raises(RuntimeError, match="without having been entered"):
        cronlock.Lock(path).__exit__(None, None, None)


def test_an_error_inside_gives_it_back(path: Path) -> None:
    with pytest.raises(KeyError), cronlock.Lock(path):
        raise KeyError
    assert is_free(path)


def test_a_lock_file_deleted_meanwhile_is_not_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening and the locking an old version of this module could unlink the file."""
    real = os.fstat
    calls: list[int] = []

    def unlinking(descriptor: int) -> os.stat_result:
        facts = real(descriptor)
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        return facts

    monkeypatch.setattr("fussy.cronlock.os.fstat", unlinking)
    with cronlock.Lock(path):
        monkeypatch.undo()
        assert path.exists()
        assert not is_free(path)


def test_a_lock_file_that_never_stays_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lstat

    def unlinking(name: str) -> os.stat_result:
        path.unlink(missing_ok=True)
        return real(name)

    monkeypatch.setattr("fussy.cronlock.os.lstat", unlinking)
    with pytest.raises(errors.SystemSetup, match="deleted again and again"), cronlock.Lock(path):
        pass


def test_planted_files_are_refused(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.symlink_to(precious)
    with pytest.raises(errors.SystemSetup, match="is a symbolic link; remove it, or choose another directory"), \
            cronlock.Lock(path):
        pass
    path.unlink()
    path.hardlink_to(precious)
    with pytest.raises(errors.SystemSetup, match="more than one name"), cronlock.Lock(path):
        pass
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(errors.SystemSetup, match="not a regular file"), cronlock.Lock(path):
        pass
    assert precious.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_another_users_file_in_a_public_directory_is_refused(path: Path, tmp_path: Path) -> None:
    path.touch()
    os.chown(path, 12345, 12345)
    with cronlock.Lock(path):
        pass  # a private directory: its owner means it
    tmp_path.chmod(0o777)  # without the sticky bit: that one makes the kernel refuse by itself (protected_regular)
    with pytest.raises(errors.SystemSetup, match=r"belongs to another user \(12345\)"), cronlock.Lock(path):
        pass


def test_what_cannot_be_opened_is_an_oserror(tmp_path: Path) -> None:
    for missing in (tmp_path / "no" / "job.lock", tmp_path):
        with pytest.raises(OSError) as caught, cronlock.Lock(missing):
            pass
        assert not isinstance(caught.value, cronlock.Busy)


def test_a_full_disk_keeps_nobody_from_locking(path: Path) -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n" + HOLDER
    with running(sys.executable, "-c", script, str(path)):
        assert path.read_bytes() == b""
        assert not is_free(path)
