"""Pipes of processes when things go wrong, are large, or take long."""

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import nbio, nbio_kill
from fussy.nbio import Pipe, ProcessError, Timeout
from fussy.nbio import Process as P


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {entry for entry in found if "/proc/" not in entry}


def children() -> set[int]:
    return {process.pid for process in nbio_kill.family([os.getpid()]) if process.parent == os.getpid()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Each test must leave no descriptor, no zombie and no process behind."""
    gc.collect()
    before = descriptors(), children()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    # what an earlier test left may go in the meantime
    assert not descriptors() - before[0] and not children() - before[1]


def gone(pid: int) -> bool:
    seen = nbio_kill.look(pid)
    return seen is None or seen.dead


def wait_for(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


# --- large and slow -------------------------------------------------------------------------------------------------

THROUGH = """
import re
from fussy.nbio import Process as P

def highest_memory():
    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])

count = 0
def counted(data):
    global count
    count += len(data)

block = bytes(1 << 20)
before = highest_memory()
for data in (block for _ in range(1024)) | P('cat') | P('cat') | counted:
    pass
assert count == 1 << 30, count
print(highest_memory() - before)
"""


def test_a_gigabyte_goes_through_in_little_memory() -> None:
    grown = int(P([sys.executable, "-c", THROUGH])(timeout=60))
    assert grown < 16 * 1024, f"{grown} KiB more"


def test_a_slow_consumer_stops_the_producer() -> None:
    made = 0

    def endless() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(1 << 16)

    with contextlib.closing(iter(endless() | P("cat") | P("cat"))) as blocks:  # type: ignore[type-var]
        next(blocks)
        time.sleep(0.2)
        for _ in range(20):
            next(blocks)
            time.sleep(0.01)
    assert made < 300  # twenty MB: what four buffers hold, and what was taken


def test_megabytes_of_standard_error_beside_standard_output() -> None:
    both = "head -c 20000000 /dev/zero | tr '\\0' e >&2; head -c 20000000 /dev/zero | tr '\\0' o"
    result = P(both, stderr=True)(timeout=30)
    assert (result.count(b"e"), result.count(b"o")) == (20_000_000, 20_000_000)
    result = (bytes(20_000_000) | P("tr '\\0' x | tee /dev/stderr", stderr=True) | P("cat"))(timeout=30)
    assert len(result) == 40_000_000


def test_a_long_chain_of_processes_and_functions() -> None:
    pipe = Pipe(bytes(1 << 16) for _ in range(200))
    for _ in range(8):
        pipe = pipe | P("cat") | (lambda block: None)
    assert len(pipe(timeout=30)) == 200 << 16


def test_small_items_are_not_slow() -> None:
    start = time.monotonic()
    assert (("x" for _ in range(20_000)) | P("cat"))() == b"x" * 20_000
    assert time.monotonic() - start < 5


def test_a_line_longer_than_any_buffer() -> None:
    lines = list(P("head -c 30000000 /dev/zero; echo; echo end", by_line=True))
    assert [len(line) for line in lines] == [30_000_000, 3]


def test_waiting_costs_no_cpu() -> None:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def silent() -> Iterator[bytes]:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            yield nbio.DID_NOTHING

    def empty() -> Iterator[bytes]:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            yield b""

    for pipe, most in ((P("sleep 1") | P("cat") | [], 0.02), (silent() | P("cat"), 0.1), (empty() | P("cat"), 0.1)):
        before = used()
        pipe()
        assert used() - before < most


def test_a_silent_pipe_pauses_through_the_documented_function(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(nbio, "pause", pauses.append)
    assert ([None, "x", nbio.DID_NOTHING] | P("cat"))(pause_on_silence=0.5) == b"x"
    assert set(pauses) == {0.5}


def test_without_process_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 5.3 have no pidfd_open."""
    def missing(pid: int) -> int:
        raise OSError("Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    assert ([None, "x"] | P("cat") | P("cat; sleep 0.1"))() == b"x"
    with pytest.raises(ProcessError):
        (P("sleep 100") | P("exit 2"))()


# --- ends too early -------------------------------------------------------------------------------------------------

def test_a_reader_that_has_enough_ends_the_writers() -> None:
    assert (P("yes") | P("head -n1"))(timeout=10) == b"y\n"
    assert (P(["yes"]) | P(["cat"]) | P(["head", "-n1"]))(timeout=10) == b"y\n"
    assert (P(["yes"]) | (lambda block: None) | P(["head", "-n1"]))(timeout=10) == b"y\n"
    assert (P(["yes"], stderr=-1) | P("true"))(timeout=10) == b""


def test_a_reader_that_has_enough_ends_the_source() -> None:
    endless = iter(lambda: "y\n", None)
    assert (endless | P("head -n1"))(timeout=10) == b"y\n"
    assert (iter(lambda: nbio.DID_NOTHING, None) | P("true"))(timeout=10) == b""
    readable, writable = os.pipe()
    with open(readable, "rb") as silent, open(writable, "wb"):
        assert Pipe(silent, lambda block: None, P("true"))(timeout=10) == b""


def test_sigpipe_is_no_excuse_when_the_reader_goes_on() -> None:
    with pytest.raises(ProcessError, match="SIGPIPE"):
        P("kill -PIPE $$")()


def test_children_have_the_usual_signals() -> None:
    ignored = int(P("grep SigIgn /proc/self/status")().split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)


# --- fails ----------------------------------------------------------------------------------------------------------

def test_the_first_failing_member_wins() -> None:
    for _ in range(5):
        with pytest.raises(ProcessError) as got:
            (P("exit 3") | P("exit 4") | P("cat"))()
        assert got.value.exitcode == 3
    with pytest.raises(ProcessError) as late:
        (P("sleep 0.05; exit 3") | P("exit 4"))()
    assert late.value.exitcode == 3
    with pytest.raises(ProcessError) as reader:
        (P(["yes"]) | P("head -n1 >/dev/null; exit 5"))(timeout=10)
    assert reader.value.exitcode == 5


def test_what_came_before_the_failure_is_in_the_error() -> None:
    with pytest.raises(ProcessError) as got:
        (P("echo part; echo why >&2; exit 3", stderr=True) | P("cat"))()
    assert sorted(got.value.output.split()) == [b"part", b"why"]
    assert "echo part" in str(got.value)


def test_a_failure_ends_all_members_and_their_descendants(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ProcessError) as got:
        (P(f"sleep 1000 & echo $! > {tmp_path}/child; wait") | P("sleep 1000") | P("sleep 0.2; exit 7"))()
    assert got.value.exitcode == 7
    assert time.monotonic() - started < 5
    assert gone(int((tmp_path / "child").read_text()))


def test_a_failure_stops_the_source() -> None:
    with pytest.raises(ProcessError):
        (iter(lambda: bytes(1000), None) | P("cat") | P("false"))(timeout=10)


def test_errors_of_functions_and_sources_end_everything() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("source")

    def refuse(block: bytes) -> None:
        raise KeyError("function")

    for pipe in (broken() | P("cat; sleep 1000"), P("echo; sleep 1000") | refuse, P("yes") | refuse | P("cat")):
        with pytest.raises(KeyError):
            pipe()


def test_interrupts_end_everything() -> None:
    timer = threading.Timer(0.3, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        (P("sleep 1000") | P("cat"))()
    timer.join()


def test_giving_up_the_iteration_ends_everything(tmp_path: Path) -> None:
    for _ in P(f"echo $$ > {tmp_path}/pid; yes") | P("cat"):
        break
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(ProcessError):
        (P("echo x") > "/dev/full")()
    with pytest.raises(OSError, match="No space"):
        (P("echo x", by_line=True) > "/dev/full")()


# --- takes too long -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [
    "sleep 1000 & echo $! > child; wait",
    "trap '' TERM INT; sh -c 'echo $$ > child; while true; do sleep 1000; done'",
    "echo $$ > child; echo some; kill -STOP $$",
    "setsid sleep 1000 & echo $! > child; wait",
    "sleep 1000 & echo $! > child; echo some",
], ids=["waits", "ignores", "stopped", "session", "orphan"])
def test_a_time_limit_ends_the_whole_family(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nbio_kill, "GRACE", 0.3)
    started = time.monotonic()
    with pytest.raises(Timeout, match="time limit") as got:
        (P(command, cwd=tmp_path) | P("cat"))(timeout=0.5)
    assert time.monotonic() - started < 3
    assert got.value.output == (b"some\n" if "some" in command else b"")
    assert gone(int((tmp_path / "child").read_text()))


def test_a_time_limit_stops_an_endless_source() -> None:
    with pytest.raises(Timeout):
        (iter(lambda: "x", None) | P("cat >/dev/null"))(timeout=0.3)
    with pytest.raises(Timeout):
        (P("yes") | (lambda block: None) | P("cat >/dev/null"))(timeout=0.3)


def test_a_background_process_of_a_good_member_is_left_alone(tmp_path: Path) -> None:
    assert P(f"sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > {tmp_path}/pid")() == b""
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gone(pid))


def test_kill_from_within() -> None:
    process = P("echo; sleep 1000")
    with pytest.raises(ProcessError, match="SIGTERM"):
        (process | (lambda block: process.kill()))(timeout=10)
    pipe = P("echo; sleep 1000") | P("cat")
    with pytest.raises(ProcessError, match="SIGTERM"):
        (pipe | (lambda block: pipe.kill()))(timeout=10)


def test_killing_what_does_not_run_does_nothing() -> None:
    process = P("true")
    process.kill()
    process()
    process.kill()
    (process | P("cat")).kill()


def test_the_kernel_reaps_when_sigchld_is_ignored() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert (P("echo x") | P("cat"))(timeout=10) == b"x\n"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_many_pipes_at_once_in_threads() -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append((bytes(1 << 20) | P("cat") | P("wc -c"))(timeout=30)))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(result) for result in results] == [1 << 20] * 8


def test_hundreds_of_runs_leave_nothing() -> None:
    for number in range(100):
        with contextlib.suppress(ProcessError):
            ("x" | P(f"cat; exit {number % 2}") | P(["cat"], stderr=True))()


def test_a_process_that_reads_slowly_gets_everything() -> None:
    reads = "import sys, time\nwhile got := sys.stdin.buffer.read1(100_000): time.sleep(0.001); print(len(got))"
    assert sum(map(int, (bytes(5_000_000) | P([sys.executable, "-c", reads]))(timeout=30).split())) == 5_000_000
