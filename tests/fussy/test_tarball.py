"""The archive: others read what we write, we read what others write, and nothing in it surprises us."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fussy import manifest, tarball, tree
from fussy.errors import BadBundle

quick = settings(max_examples=100, deadline=None)

SIZES = (0, 1, 511, 512, 513, 1024, 70_000)


def plain_tree(top: Path) -> Path:
    """A tree that every format of tar can hold."""
    (top / "dir/sub").mkdir(parents=True)
    for size in SIZES:
        (top / f"dir/{size}").write_bytes(os.urandom(size))
    (top / "with space").write_text("a")
    (top / "new\nline").write_text("b")
    (top / "ü").write_text("c")
    (top / "set-id").write_text("d")
    (top / "set-id").chmod(0o6751)
    (top / "dir/sub").chmod(0o1777)
    (top / "link").symlink_to("../else where/é")
    os.link(top / "dir/513", top / "zz-hard")
    os.mkfifo(top / "fifo", 0o640)
    (top / ("n" * 100)).write_text("e")
    (top / ("p" * 90)).mkdir()
    (top / ("p" * 90) / ("q" * 60)).write_text("f")
    if os.geteuid() == 0:
        os.chown(top / "with space", 12345, 54321)
    for path in (top / "dir/sub", top / "dir", top):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return top


def awkward_tree(top: Path) -> Path:
    """A tree that asks for extended headers."""
    plain_tree(top)
    (top / os.fsdecode(b"latin-\xe9")).write_text("g")
    (top / "to-latin").symlink_to(os.fsdecode(b"\xff\xfe"))
    (top / "far").symlink_to("t" * 300)
    deep = top / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_text("h")
    os.link(deep / ("f" * 255), top / "zz-deep")
    (top / "future").write_text("i")
    os.utime(top / "future", (2**34, 2**34))
    if os.geteuid() == 0:
        os.chown(top / "future", 3_000_000_000, 2_500_000)
    os.setxattr(top / "future", "user.a=b%3D", b"\xff\0\n=")
    os.setxattr(top / "dir", "user.text", "value é".encode())
    os.setxattr(top / "dir/512", "user.empty", b"")
    if os.geteuid() == 0:
        # CAP_NET_BIND_SERVICE, permitted and effective: struct vfs_cap_data of linux/capability.h
        os.setxattr(top / "dir/512", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
    return top


def written(top: Path) -> bytes:
    parts = []
    for found in tree.scan(os.fsencode(top)):
        parts.append(tarball.head(top.name, found.entry))
        if found.entry.data_size:
            parts += [Path(os.fsdecode(found.file)).read_bytes(), tarball.padding(found.entry.size)]
    return b"".join([*parts, tarball.END])


def entries(top: Path) -> dict[bytes, manifest.Entry]:
    return {found.entry.name: found.entry for found in tree.scan(os.fsencode(top))}


def read(data: bytes, top: str, cuts: Iterable[int] = ()) -> list[manifest.Entry]:
    """Return the entries of the archive DATA, which comes in blocks that end at CUTS."""
    places = [0, *sorted(cuts), len(data)]
    blocks = (data[start:end] for start, end in pairwise(places) if start != end)
    return list(as_entries(tarball.members(blocks), top))


def as_entries(members: Iterator[tarball.Member], top: str) -> Iterator[manifest.Entry]:
    for member in members:
        content = b"".join(member.data)
        path, raw_path = manifest.spell(member.name.removeprefix(os.fsencode(top)).lstrip(b"/") or b".")
        link = member.link.removeprefix(os.fsencode(top) + b"/") if member.kind == "hardlink" else member.link
        target, raw_target = manifest.spell(link)
        yield manifest.Entry(
            type=member.kind, path=path, raw_path=raw_path, mode=member.mode, uid=member.uid, gid=member.gid,
            mtime=member.mtime, size=member.size, sha256=manifest.digest(content) if member.kind == "file" else "",
            target=target, raw_target=raw_target, xattrs=manifest.quoted(member.xattrs))


def same(found: Iterable[manifest.Entry], wanted: dict[bytes, manifest.Entry]) -> None:
    """Compare, whichever name of a hard-linked file came first."""
    by_name = {one.name: one for one in found}
    assert set(by_name) == set(wanted)
    for name, one in by_name.items():
        other = wanted[name]
        if "hardlink" in (one.type, other.type):
            content = {by_name[one.link].sha256} if one.type == "hardlink" else {one.sha256}
            content |= {wanted[other.link].sha256} if other.type == "hardlink" else {other.sha256}
            assert len(content) == 1, name
            continue
        assert one == other, name


# --- what we write ----------------------------------------------------------------------------------------------------


def test_gnu_tar_makes_the_same_tree(tmp_path: Path) -> None:
    top = awkward_tree(tmp_path / "fw")
    (tmp_path / "out").mkdir()
    # without the delay tar sets a directory's time before it writes the files, which come after all directories
    subprocess.run(["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--delay-directory-restore",
                    "-C", tmp_path / "out"], input=written(top), capture_output=True, check=True)
    assert list(entries(tmp_path / "out/fw").values()) == list(entries(top).values())
    assert os.stat(tmp_path / "out/fw/zz-deep").st_nlink == 2


def test_gnu_tar_lists_it(tmp_path: Path) -> None:
    top = awkward_tree(tmp_path / "fw")
    listed = subprocess.run(["tar", "-tv"], input=written(top), capture_output=True, check=True).stdout
    assert len(listed.splitlines()) == len(entries(top))
    assert b"-rwsr-s--x " in listed
    assert b"fw/zz-hard link to fw/dir/513" in listed


def test_bsdtar_makes_the_same_tree(tmp_path: Path) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is missing: install libarchive-tools")
    top = awkward_tree(tmp_path / "fw")
    (tmp_path / "out").mkdir()
    subprocess.run(["bsdtar", "-x", "-p", "--xattrs", "-C", tmp_path / "out"], input=written(top), check=True,
                   env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True)
    wanted = entries(top)
    # libarchive restores only some kinds of extended attributes
    def told(one: manifest.Entry) -> tuple[object, ...]:
        return one.name, one.type, one.mode, one.uid, one.gid, one.size, one.sha256, one.link, one.mtime

    assert list(map(told, entries(tmp_path / "out/fw").values())) == list(map(told, wanted.values()))


def test_busybox_makes_the_same_tree(tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is missing: install busybox-static")
    top = plain_tree(tmp_path / "fw")
    (tmp_path / "out").mkdir()
    subprocess.run(["busybox", "tar", "-x", "-p", "-C", tmp_path / "out"], input=written(top), check=True)
    assert {name: (one.type, one.size, one.sha256) for name, one in entries(tmp_path / "out/fw").items()} == \
           {name: (one.type, one.size, one.sha256) for name, one in entries(top).items()}


def test_python_reads_it(tmp_path: Path) -> None:
    top = awkward_tree(tmp_path / "fw")
    with tarfile.open(fileobj=io.BytesIO(written(top))) as archive:
        found = {os.fsencode(info.name).removeprefix(b"fw/"): info for info in archive}
    for name, wanted in entries(top).items():
        info = found[b"fw" if name == b"." else name]
        assert (info.mode, info.uid, info.gid, int(info.mtime), info.size) == \
               (wanted.mode, wanted.uid, wanted.gid, wanted.mtime, wanted.size)


def test_our_own_reader_gives_back_every_entry(tmp_path: Path) -> None:
    top = awkward_tree(tmp_path / "fw")
    assert read(written(top), "fw") == list(entries(top).values())


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
paths = st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=4).map(b"/".join).map(
    lambda raw: raw.replace(b"\0", b"0").strip(b"/") or b"x")


@st.composite
def any_entry(draw: st.DrawFn) -> manifest.Entry:
    kinds: list[manifest.Type] = ["file", "directory", "symlink", "hardlink", "fifo"]
    kind = draw(st.sampled_from(kinds))
    path, raw_path = manifest.spell(draw(paths))
    target, raw_target = manifest.spell(draw(paths)) if kind in ("symlink", "hardlink") else ("", "")
    values = draw(st.dictionaries(texts.map("user.x{}".format), st.binary(max_size=30), max_size=2))
    return manifest.Entry(
        type=kind, path=path, raw_path=raw_path, mode=draw(st.integers(0, 0o7777)), uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)), mtime=draw(st.integers(-2**35, 2**35)), target=target,
        raw_target=raw_target, sha256=manifest.digest(b"") if kind == "file" else "",
        xattrs=manifest.quoted(values) if kind in ("file", "directory") else {})


@quick
@given(st.lists(any_entry(), max_size=5), st.lists(st.integers(0, 5000), max_size=12))
def test_any_entry_is_read_as_it_was_written(wanted: list[manifest.Entry], cuts: list[int]) -> None:
    data = b"".join(tarball.head("fw", one) for one in wanted) + tarball.END
    assert read(data, "fw", (cut % len(data) for cut in cuts)) == wanted


# --- what others write ------------------------------------------------------------------------------------------------

WRITERS = {
    "GNU tar, ustar": (["tar", "--format=ustar"], plain_tree),
    "GNU tar, oldgnu": (["tar", "--format=oldgnu"], plain_tree),
    "GNU tar, gnu": (["tar", "--format=gnu"], plain_tree),
    "GNU tar, pax": (["tar", "--format=posix", "--xattrs", "--xattrs-include=*"], awkward_tree),
    "bsdtar, ustar": (["bsdtar", "--format=ustar"], plain_tree),
    "bsdtar, gnu": (["bsdtar", "--format=gnutar"], plain_tree),
    "bsdtar, pax": (["bsdtar", "--format=pax", "--xattrs"], awkward_tree),
    "busybox": (["busybox", "tar"], plain_tree),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_archives_of_others(tmp_path: Path, writer: str) -> None:
    command, make = WRITERS[writer]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing: see scripts/packages")
    top = make(tmp_path / "fw")
    data = subprocess.run([*command, "-cf", "-", "-C", tmp_path, "fw"], capture_output=True, check=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
    same(read(data, "fw"), entries(top))


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_long_names_of_gnu_tar(tmp_path: Path, format: str) -> None:
    top = tmp_path / "fw"
    long = top / ("d" * 200) / ("e" * 250)
    long.mkdir(parents=True)
    (long / "file").write_text("x")
    (top / "link").symlink_to("t" * 500)
    os.link(long / "file", top / "hard")
    data = subprocess.run(["tar", f"--format={format}", "-cf", "-", "-C", tmp_path, "fw"], capture_output=True,
                          check=True).stdout
    same(read(data, "fw"), entries(top))


def test_archives_of_python(tmp_path: Path) -> None:
    top = plain_tree(tmp_path / "fw")
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=format) as archive:
            archive.add(top, "fw")
        same(read(raw.getvalue(), "fw"), entries(top))


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fw").mkdir()
    with (tmp_path / "fw/hole").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x")
    for format in ("gnu", "posix"):
        data = subprocess.run(["tar", "-S", f"--format={format}", "-cf", "-", "-C", tmp_path, "fw"],
                              capture_output=True, check=True).stdout
        with pytest.raises(BadBundle, match="sparse"):
            read(data, "fw")


def test_what_follows_the_end_is_nothing(tmp_path: Path) -> None:
    top = plain_tree(tmp_path / "fw")
    more = written(top) + bytes(9000) + b"anything"
    assert read(more, "fw") == list(entries(top).values())


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    top = tmp_path_factory.mktemp("tar") / "fw"
    top.mkdir()
    (top / "a").write_text("content")
    (top / "link").symlink_to("x" * 200)
    os.setxattr(top / "a", "user.note", b"\xff")
    return written(top)


def test_an_archive_that_was_cut_is_refused_wherever(small: bytes) -> None:
    for size in range(0, len(small) - 2 * tarball.BLOCK + 1, 64):
        with pytest.raises(BadBundle, match="too early|no end"):
            read(small[:size], "fw")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_gives_members_or_a_refusal(small: bytes, data: st.DataObject) -> None:
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(small) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        repair(changed)
    try:
        read(bytes(changed), "fw")
    except BadBundle as error:
        assert str(error).startswith("cannot unpack")


def repair(data: bytearray) -> None:
    """Correct the checksum of every block that looks like a header, as an enemy would."""
    for start in range(0, len(data) - tarball.BLOCK + 1, tarball.BLOCK):
        block = data[start:start + tarball.BLOCK]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148:start + 156] = b"%06o\0 " % sum(block)


@quick
@given(st.binary(max_size=2000))
def test_noise_is_refused(noise: bytes) -> None:
    if any(noise[:tarball.BLOCK]) or len(noise) < tarball.BLOCK:
        with pytest.raises(BadBundle):
            read(noise, "fw")


@pytest.mark.parametrize("number", ["nan", "inf", "-1e400", "x", "", "1" * 6000])
def test_numbers_that_are_none(number: str) -> None:
    info = tarfile.TarInfo("fw/a")
    info.pax_headers = {"mtime": number}
    with pytest.raises(BadBundle, match="not a number"):
        read(info.tobuf(tarfile.PAX_FORMAT) + tarball.END, "fw")


def test_a_header_that_never_ends() -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(BadBundle, match="a header of 1099511627776 bytes"):
        read(info.tobuf(tarfile.GNU_FORMAT), "fw")
