"""Compression in frames: any gzip or zstd reads ours, we read theirs, frames can be left out, bombs stay small."""

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fussy import frames, manifest, pieces, tarball, tree
from fussy.errors import BadBundle
from fussy.frames import FRAME_SIZE, NO_ENTRY, Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

quick = settings(max_examples=80, deadline=None)

FRAMES = {"gzip": frames.gzip_frame, "zstd": frames.zstd_frame}
TOOLS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"]}
both = pytest.mark.parametrize("name", FRAMES)

# Text that compresses, and noise that does not.
repeated = st.builds(lambda one, times: one * times, st.binary(max_size=20), st.integers(0, 5000))
contents = st.one_of(st.binary(max_size=3000), repeated)


def source(data: bytes, cuts: Iterable[int] = ()) -> Source:
    """Give DATA in blocks that end at CUTS."""
    places = [0, *sorted(cuts), len(data)]
    blocks = iter([data[start:end] for start, end in pairwise(places) if start != end])
    return Source(lambda: next(blocks, b""))


def everything(data: bytes, cuts: Iterable[int] = ()) -> bytes:
    return b"".join(frames.blocks(source(data, cuts), lambda first, count: True))


# --- ours, read by others ---------------------------------------------------------------------------------------------


@both
@quick
@given(parts=st.lists(contents, min_size=1, max_size=4))
def test_tools_read_our_frames(name: str, parts: list[bytes]) -> None:
    data = b"".join(FRAMES[name](part, i, 1) for i, part in enumerate(parts))
    done = subprocess.run(TOOLS[name], input=data, capture_output=True, check=True)
    assert done.stdout == b"".join(parts)
    assert not done.stderr
    if name == "gzip":
        assert gzip.decompress(data) == b"".join(parts)


@both
def test_a_buffer_that_is_used_again_makes_no_difference(name: str) -> None:
    buffer = bytearray(b"one" * 1000)
    frame = FRAMES[name](memoryview(buffer)[:2000], 0, 1)
    assert frame == FRAMES[name](bytes(buffer[:2000]), 0, 1)


def test_gzip_without_libdeflate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deflate", None)
    data = frames.gzip_frame(b"text" * 1000, 3, 2)
    assert gzip.decompress(data) == b"text" * 1000
    assert everything(data) == b"text" * 1000


# --- ours, read by us -------------------------------------------------------------------------------------------------


@both
@quick
@given(parts=st.lists(contents, min_size=1, max_size=6), data=st.data())
def test_frames_can_be_left_out(name: str, parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(FRAMES[name](part, i, 1) for i, part in enumerate(parts))
    chosen = data.draw(st.sets(st.integers(0, len(parts) - 1)))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    found = frames.blocks(source(stream, cuts), lambda first, count: first in chosen)
    assert b"".join(found) == b"".join(part for i, part in enumerate(parts) if i in chosen)


@both
def test_block_for_block_of_a_byte(name: str) -> None:
    stream = FRAMES[name](b"a" * 5000, NO_ENTRY, 0) + FRAMES[name](os.urandom(300), 0, 1)
    assert everything(stream, range(len(stream))) == everything(stream)


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> list[tree.Found]:
    """Files below, at and above the size of a piece, which the tests make 2,000 bytes."""
    top = tmp_path_factory.mktemp("frames") / "fw"
    for i, size in enumerate([0, 10, 300, 700, 1999, 2000, 2001, 4000, 9001, 5, 6, 1500, 1500, 0]):
        (top / f"d{i % 3}").mkdir(parents=True, exist_ok=True)
        (top / f"d{i % 3}/{i:02}-{size}").write_bytes(os.urandom(size))
    (top / "d0/link").symlink_to("nowhere")
    os.link(top / "d2/08-9001", top / "zz-hard")
    return tree.scan(os.fsencode(top))


def content(found: tree.Found) -> bytes:
    return Path(os.fsdecode(found.file)).read_bytes()


@both
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_choice_of_members_is_found_whole(name: str, small_tree: list[tree.Found], data: st.DataObject) -> None:
    """The frames of the chosen members give these, perhaps their neighbours, and never half of one."""
    described = manifest.encode(manifest.Manifest(name="fw", entries=[found.entry for found in small_tree]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "FRAME_SIZE", 2000)
        cut = pieces.cut("fw", described, small_tree)
        stream = b"".join(frame for _, frame in pieces.compressed(cut, FRAMES[name]))
    chosen = data.draw(st.sets(st.integers(0, len(small_tree) - 1)))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    taken = 0

    def wanted(first: int, count: int) -> bool:
        nonlocal taken
        is_wanted = any(i in chosen for i in range(first, first + count))
        taken += is_wanted
        return is_wanted

    found = {}
    for member in tarball.members(frames.blocks(source(stream, cuts), wanted)):
        found[member.name.partition(b"/")[2] or b"."] = b"".join(member.data)
    assert found.pop(manifest.PATH) == described
    for i in chosen:
        entry = small_tree[i].entry
        assert found[entry.name] == (content(small_tree[i]) if entry.type == "file" else b"")
    assert taken or not chosen
    if not chosen:
        assert not found


def test_pieces_without_choice_are_the_archive(small_tree: list[tree.Found]) -> None:
    parts = [tarball.head("fw", found.entry)
             + (content(found) + tarball.padding(found.entry.size) if found.entry.type == "file" else b"")
             for found in small_tree]
    described = b"{}"
    own = manifest.Entry(type="file", path=manifest.PATH.decode(), size=2)
    wanted = b"".join([tarball.head("fw", own), described, tarball.padding(2), *parts, tarball.END])
    for size in (700, 2000, FRAME_SIZE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "FRAME_SIZE", size)
            for compress in FRAMES.values():
                cut = pieces.cut("fw", described, small_tree)
                assert everything(b"".join(frame for _, frame in pieces.compressed(cut, compress))) == wanted


# --- theirs, read by us -----------------------------------------------------------------------------------------------


def skippable(data: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A53, len(data)) + data


PLAIN: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda part: gzip.compress(part, 6),
    "gzip with a name": lambda part: b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0" + gzip.compress(part)[10:],
    "zstd": lambda part: zstd.compress(part, 3),
    "zstd after a skippable frame": lambda part: skippable(b"something") + zstd.compress(part, 3),
    "nothing": lambda part: part,
}


@pytest.mark.parametrize("name", PLAIN)
@quick
@given(parts=st.lists(contents, min_size=1, max_size=4), cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_plain_streams_in_any_number_of_parts(name: str, parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(PLAIN[name], [b"tar" * 100, *parts]))
    assert everything(data, (cut % (len(data) + 1) for cut in cuts)) == b"".join([b"tar" * 100, *parts])


@pytest.mark.parametrize("command", [["gzip", "-1"], ["gzip", "-9"], ["zstd", "-q"], ["zstd", "-q", "-19"],
                                     ["zstd", "-q", "-T0", "-B1M"], ["zstd", "-q", "--no-check"]], ids=" ".join)
def test_streams_of_the_tools(command: list[str]) -> None:
    data = b"".join(b"%d\n" % i for i in range(700_000))
    stream = subprocess.run([*command, "-c"], input=data, capture_output=True, check=True).stdout
    assert everything(stream, range(0, len(stream), 77_777)) == data


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_plain_stream_that_was_cut_is_refused(name: str) -> None:
    stream = PLAIN[name](os.urandom(2000))
    for size in range(20, len(stream)):
        with pytest.raises(BadBundle, match="too early"):
            everything(stream[:size])


@both
def test_framed_streams_that_were_cut_are_refused(name: str) -> None:
    first = FRAMES[name](b"a" * 100, NO_ENTRY, 0)
    stream = first + FRAMES[name](os.urandom(2000), 0, 1)
    for size in range(len(first) + 1, len(stream)):
        for wanted in (True, False):
            with pytest.raises(BadBundle):
                list(frames.blocks(source(stream[:size]), lambda first, count: wanted))  # noqa: B023


@both
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_gives_bytes_or_a_refusal(name: str, data: st.DataObject) -> None:
    stream = bytearray(FRAMES[name](b"abc" * 200, NO_ENTRY, 0) + FRAMES[name](bytes(range(256)), 0, 1))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = everything(bytes(stream))
    except BadBundle as error:
        assert str(error).startswith("cannot")
    else:
        assert len(found) < 10_000


# --- bombs ------------------------------------------------------------------------------------------------------------


def peak(work: Callable[[], object]) -> int:
    """Return the memory that WORK takes at most, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("command", [["gzip"], ["zstd", "-q"]], ids=" ".join)
def test_a_plain_bomb_comes_in_small_blocks(command: list[str]) -> None:
    size = 200 << 20
    bomb = subprocess.run(f"head -c {size} /dev/zero | {' '.join(command)}", shell=True, capture_output=True,  # noqa: S602
                          check=True).stdout
    assert len(bomb) < size // 500
    seen = []

    def look() -> None:
        seen.append(sum(map(len, frames.blocks(source(bomb), lambda first, count: True))))

    assert peak(look) < 8 * FRAME_SIZE
    assert seen == [size]


def framed(body: bytes, plain: int, head: bytes) -> bytes:
    return head + struct.pack("<IIII", len(body), plain, NO_ENTRY, 0) + body


@pytest.mark.parametrize("says", [0, 100, FRAME_SIZE])
@both
def test_a_frame_that_holds_more_than_it_says(name: str, says: int) -> None:
    zeros = bytes(64 << 20)
    if name == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = framed(packer.compress(zeros) + packer.flush() + bytes(8), says, frames._GZIP_HEAD)
    else:
        bomb = framed(zstd.compress(zeros), says, frames._ZSTD_HEAD)

    def refused() -> None:
        with pytest.raises(BadBundle, match="another length than it says"):
            everything(bomb)

    assert peak(refused) < 8 * FRAME_SIZE


@pytest.mark.parametrize("head", [frames._GZIP_HEAD, frames._ZSTD_HEAD], ids=["gzip", "zstd"])
def test_a_frame_that_says_it_is_huge(head: bytes) -> None:
    for packed, plain in ((2**32 - 1, 10), (10, 2**32 - 1)):
        with pytest.raises(BadBundle, match="a frame of 4294967295 bytes"):
            everything(head + struct.pack("<IIII", packed, plain, NO_ENTRY, 0) + bytes(100))


@pytest.mark.parametrize("head", [frames._GZIP_HEAD, frames._ZSTD_HEAD], ids=["gzip", "zstd"])
def test_a_frame_that_says_it_holds_everything(head: bytes) -> None:
    """An installer looks at each entry of a frame; four thousand millions would keep it busy for long."""
    with pytest.raises(BadBundle, match="a frame of 4294967295 entries"):
        everything(head + struct.pack("<IIII", 10, 10, 0, 2**32 - 1) + bytes(10))


def test_a_window_that_takes_too_much_memory() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    stream = packer.compress(os.urandom(1000)) + packer.flush()
    for data in (stream, framed(stream, 1000, frames._ZSTD_HEAD)):
        with pytest.raises(BadBundle, match="cannot decompress the bundle: .*memory"):
            everything(data)
