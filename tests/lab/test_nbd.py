"""The disk that loses power: what survives is what the rules allow, and common NBD clients can use it."""

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pdimage.lab import writelog
from pdimage.lab.nbd import MOST_BYTES, Server
from pdimage.lab.volatile import Disk, PowerCut, copy_file
from pdimage.lab.writelog import POLICIES, SECTOR, Flush, Mark, Policy, Write, crash_states, survivors

SIZE = 64 * SECTOR
seeds = some.integers(0, 2**32 - 1)


@some.composite
def a_write(draw: some.DrawFn) -> Write:
    offset = draw(some.integers(0, SIZE - 1))
    length = draw(some.integers(1, min(SIZE - offset, 5 * SECTOR)))
    filled = draw(some.one_of(some.none(), some.integers(1, 255)))
    return Write(offset, length, None if filled is None else bytes([filled]) * length, draw(some.booleans()))


def content(writes: list[Write]) -> bytes:
    """Return what a disk of zeroes holds after WRITES."""
    image = bytearray(SIZE)
    for write in writes:
        image[write.offset:write.offset + write.length] = write.data or bytes(write.length)
    return bytes(image)


@contextmanager
def a_disk(directory: Path, size: int = SIZE, **settings: object) -> Iterator[Disk]:
    path = directory / "disk"
    path.write_bytes(b"")
    os.truncate(path, size)
    disk = Disk(path, **settings)  # type: ignore[arg-type]
    try:
        yield disk
    finally:
        disk.close()


def in_order(some_writes: list[Write], window: list[Write]) -> bool:
    """Whether SOME_WRITES are a part of WINDOW, in its order."""
    rest = iter(window)
    return all(any(write == other for other in rest) for write in some_writes)


@given(some.lists(a_write(), max_size=12), some.sampled_from(POLICIES), seeds)
def test_survivors_are_durable_writes_and_what_the_policy_says(window: list[Write], policy: Policy, seed: int) -> None:
    left = survivors(window, policy, seed)

    assert left == survivors(window, policy, seed)
    assert [write for write in left if write.durable] == [write for write in window if write.durable]
    if policy == "none":
        assert all(write.durable for write in left)
    elif policy == "all":
        assert left == window
    elif policy == "prefix":
        assert any(left == [write for i, write in enumerate(window) if i < length or write.durable]
                   for length in range(len(window) + 1))
    elif policy == "subset":
        assert in_order(left, window)
    else:
        sectors = [sector for write in window for sector in write.sectors()]
        assert in_order([sector for write in left for sector in write.sectors()], sectors)
        # one write lacks sectors; whatever else is not there as it was is a sector of that one
        assert all(len(write.sectors()) == 1 for write in left if write not in window)


@given(a_write())
def test_sectors_are_the_write_again(write: Write) -> None:
    assert content(write.sectors()) == content([write])
    assert sum(sector.length for sector in write.sectors()) == write.length


def test_every_seed_tears_one_write_and_the_seeds_differ() -> None:
    window = [Write(0, 8 * SECTOR, b"x" * 8 * SECTOR)]
    left = [content(survivors(window, "torn", seed)) for seed in range(50)]
    kept = [sorted(offset // SECTOR for offset in range(0, 8 * SECTOR, SECTOR) if image[offset]) for image in left]
    assert all(0 < len(sectors) < 8 for sectors in kept)
    assert len({tuple(sectors) for sectors in kept}) > 30


@given(some.lists(some.one_of(a_write(), some.just(Flush())), max_size=15), some.integers(1, 15),
       some.sampled_from(POLICIES), seeds)
def test_the_file_holds_what_was_flushed_and_what_survived(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Write | Flush], cut_at: int, policy: Policy, seed: int
) -> None:
    flushed: list[Write] = []
    window: list[Write] = []
    with a_disk(tmp_path_factory.mktemp("disk"), cut_at=cut_at, policy=policy, seed=seed) as disk:
        try:
            for entry in entries:
                if isinstance(entry, Write):
                    window.append(entry)
                    disk.write(entry)
                    assert disk.read(0, SIZE) == content(flushed + window)
                else:
                    disk.flush()
                    flushed, window = flushed + window, []
                    assert disk.path.read_bytes() == content(flushed)
        except PowerCut:
            last = window.pop()
            window.append(Write(last.offset, last.length, last.data))  # not answered: FUA promises nothing
        else:
            disk.cut()
        with pytest.raises(PowerCut):
            disk.read(0, 1)
        with pytest.raises(PowerCut):
            disk.flush()
        assert disk.path.read_bytes() == content(flushed + survivors(window, policy, seed))


def test_an_older_write_does_not_win_over_a_durable_one(tmp_path: Path) -> None:
    with a_disk(tmp_path, policy="all") as disk:
        disk.write(Write(0, 2, b"ab"))
        disk.write(Write(0, 1, b"A", durable=True))
        assert disk.path.read_bytes()[:2] == b"A\0"
        disk.cut()
        assert disk.path.read_bytes()[:2] == b"Ab"


def test_a_disk_goes_on_as_it_was_kept(tmp_path: Path) -> None:
    flushed, not_flushed, later = (Write(i * SECTOR, SECTOR, bytes([i + 1]) * SECTOR) for i in range(3))
    with a_disk(tmp_path) as disk:
        disk.write(flushed)
        disk.flush()
        disk.write(not_flushed)
        disk.ignores_flush = True
        disk.flush()
        kept = disk.keep(tmp_path / "kept")
    assert (kept.writes, kept.window) == (2, (not_flushed,))
    assert kept.durable.read_bytes() == content([flushed])

    for policy, left in (("none", [flushed]), ("all", [flushed, not_flushed, later])):
        copy_file(kept.durable, tmp_path / "again")
        again = Disk(tmp_path / "again", kept=kept, cut_at=3, policy=policy)  # type: ignore[arg-type]
        assert again.read(0, SIZE) == content([flushed, not_flushed])
        with pytest.raises(PowerCut):
            again.write(later)
        again.close()
        assert again.path.read_bytes() == content(left)


def test_crash_states_are_each_flush_point_and_lossy_ways_to_the_next() -> None:
    first, second, third = (Write(i * SECTOR, 2 * SECTOR, bytes([i + 1]) * 2 * SECTOR) for i in range(3))
    log: list[writelog.Entry] = [first, Flush(), second, Mark("done"), third]

    states = list(crash_states(log, 7, samples=3))

    assert [state.name for state in states if "sample" not in state.name] == [
        "flush 0", "flush 1", "mark done and nothing since flush 1", "flush 2"]
    assert [state.settled for state in states] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 5]
    # a cut after the mark knows of it, and may lose what was written before it
    late = [state for state in states if state.marks]
    assert [state.name.partition(":")[0] for state in late] == [
        "mark done and nothing since flush 1", *["after flush 1, before entry 5"] * 3, "flush 2"]
    assert late[1].window in ((second,), (third,))
    assert states == list(crash_states(log, 7, samples=3)) != list(crash_states(log, 8, samples=3))


def test_a_log_is_kept_in_a_file(tmp_path: Path) -> None:
    log: list[writelog.Entry] = [Write(5, 3, b"abc", True), Write(9, 100, None), Flush(), Mark("ready")]
    writelog.save(log, tmp_path / "log")
    assert writelog.load(tmp_path / "log") == log


def started(*argv: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is missing: see scripts/packages")
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def run(*argv: str) -> str:
    done = started(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def qemu_io(uri: str, *commands: str) -> "subprocess.CompletedProcess[str]":
    options = [word for each in commands for word in ("-c", each)]
    return started("qemu-io", "-f", "raw", "-t", "writeback", uri, *options)


def test_qemu_and_libnbd_read_and_write_it(tmp_path: Path) -> None:
    with a_disk(tmp_path, 4 << 20, record=True) as disk, Server(disk, tmp_path / "nbd"):
        uri = f"nbd+unix:///?socket={tmp_path}/nbd"
        info = json.loads(run("nbdinfo", "--json", uri))
        assert info["protocol"] == "newstyle-fixed"
        export, = info["exports"]
        assert {name: export[name] for name in (
            "export-size", "can_flush", "can_fua", "can_trim", "can_zero", "is_read_only", "block_size_preferred")} == {
            "export-size": 4 << 20, "can_flush": True, "can_fua": True, "can_trim": True, "can_zero": True,
            "is_read_only": False, "block_size_preferred": 512}
        assert "export=\"\"" in run("nbdinfo", "--list", uri)
        assert json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", uri))["virtual-size"] == 4 << 20

        assert qemu_io(uri, "write -P 7 0 64k", "write -f -P 8 1M 512", "write -z 4k 4k", "discard 8k 4k", "flush",
                       "read -P 7 0 4k", "read -P 0 4k 8k", "read -P 8 1M 512", "read -P 7 12k 52k").returncode == 0
        assert disk.path.read_bytes()[:13 << 10] == b"\7" * 4096 + bytes(8192) + b"\7" * 1024
        assert [(entry.offset, entry.length, entry.durable) for entry in disk.log if isinstance(entry, Write)] == [
            (0, 65536, False), (1 << 20, 512, True), (4096, 4096, False), (8192, 4096, False)]
        assert disk.log[4] == Flush()

        source = tmp_path / "source"
        source.write_bytes(os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(2 << 20))
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)
        assert disk.path.read_bytes() == source.read_bytes()


def test_at_the_nth_write_the_line_goes_dead(tmp_path: Path) -> None:
    with a_disk(tmp_path, 1 << 20, cut_at=3, policy="none") as disk, Server(disk, tmp_path / "nbd"):
        uri = f"nbd+unix:///?socket={tmp_path}/nbd"
        done = qemu_io(uri, "write -P 1 0 512", "flush", "write -P 2 512 512", "write -P 3 1024 512", "read 0 512")
        assert done.stdout.count("wrote 512/512") == 2
        assert (done.stdout + done.stderr).count("failed") == 2, "the third write, and the read after it"
        assert disk.path.read_bytes() == b"\1" * 512 + bytes((1 << 20) - 512)
        with socket.socket(socket.AF_UNIX) as late:
            assert late.connect_ex(str(tmp_path / "nbd")) != 0 or late.recv(1) == b""
    assert not (tmp_path / "nbd").exists()


def connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(10)
    line.connect(str(path))
    assert line.recv(18, socket.MSG_WAITALL) == b"NBDMAGICIHAVEOPT\0\3"
    return line


def asked(line: socket.socket, option: int, data: bytes = b"") -> tuple[int, bytes]:
    line.sendall(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)
    magic, echoed, kind, length = struct.unpack(">QIII", line.recv(20, socket.MSG_WAITALL))
    assert (magic, echoed) == (0x3e889045565a9, option)
    return kind, line.recv(length, socket.MSG_WAITALL) if length else b""


def test_a_client_does_not_notice_that_the_disk_is_another(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with a_disk(tmp_path) as disk, a_disk(tmp_path / "other") as other, Server(disk, tmp_path / "nbd") as server:
        other.write(Write(0, 2, b"ab"))
        with connected(tmp_path / "nbd") as line:
            line.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
            assert line.recv(10, socket.MSG_WAITALL) == struct.pack(">QH", SIZE, 0x6d)
            for read in (b"\0\0", b"ab"):
                line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 42, 0, 2))
                assert line.recv(18, socket.MSG_WAITALL) == struct.pack(">IIQ", 0x67446698, 0, 42) + read
                server.change(other)
            other.cut()
            assert line.recv(1) == b"", "the power of the disk that is there now has gone"


def test_what_the_protocol_asks_for_beside_that(tmp_path: Path) -> None:
    with a_disk(tmp_path) as disk, Server(disk, tmp_path / "nbd"):
        with connected(tmp_path / "nbd") as line:
            line.sendall(struct.pack(">I", 3))
            assert asked(line, 5) == (1 << 31 | 1, b""), "no TLS"
            assert asked(line, 7, struct.pack(">I4sH", 4, b"else", 0)) == (1 << 31 | 6, b""), "no such export"
            assert asked(line, 7, b"\0") == (1 << 31 | 3, b""), "not what GO must have"
            assert asked(line, 2) == (1, b""), "ABORT"
            assert line.recv(1) == b""
        with connected(tmp_path / "nbd") as line:
            line.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 1, 0))  # EXPORT_NAME, with zeroes
            assert line.recv(134, socket.MSG_WAITALL) == struct.pack(">QH", SIZE, 0x6d) + bytes(124)

            def request(command: int, offset: int, length: int, data: bytes = b"") -> tuple[int, int]:
                line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, 42, offset, length) + data)
                magic, error, cookie = struct.unpack(">IIQ", line.recv(16, socket.MSG_WAITALL))
                assert magic == 0x67446698
                return error, cookie

            assert request(0, SIZE - 1, 2) == (22, 42), "EINVAL: reads past the end"
            assert request(1, SIZE - 1, 2, b"ab") == (28, 42), "ENOSPC: writes past the end"
            assert request(9, 0, 0) == (22, 42), "EINVAL: no such command"
            assert request(1, SIZE - 2, 2, b"ab") == (0, 42)
            line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 43, 0, MOST_BYTES + 1))
            assert line.recv(1) == b"", "too long to take"
        with connected(tmp_path / "nbd") as line:
            line.sendall(struct.pack(">I", 3) + b"nonsense" * 4)
            with suppress(ConnectionResetError):  # what it had not read yet went with the connection
                assert line.recv(1) == b""
