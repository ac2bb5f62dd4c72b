"""The manifest: what is written is read again, and nothing that it can say leads out of the release."""

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fussy import manifest, tarball, unpack
from fussy.errors import BadBundle
from fussy.frames import Source

quick = settings(max_examples=100, deadline=None)
thorough = settings(max_examples=150, deadline=None)

# --- round trip -------------------------------------------------------------------------------------------------------

components = st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"_")).filter(lambda raw: raw not in (b".", b".."))
attribute_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).map(
    lambda text: f"user.x{text}")
attributes = st.dictionaries(attribute_names, st.binary(max_size=40), max_size=3)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
owners = st.integers(0, 2**32 - 2)


@st.composite
def safe_entries(draw: st.DrawFn) -> list[manifest.Entry]:
    """Entries as a scan of a real tree would give them: parents first, links to earlier files."""
    entries = [manifest.Entry(type="directory", path=".", mode=0o755)]
    directories, files, taken = [b""], [], {b".fussy", b".fussy/manifest.json"}
    kinds: list[manifest.Type] = ["directory", "file", "hardlink", "symlink", "fifo"]
    for _ in range(draw(st.integers(0, 12))):
        path = draw(st.sampled_from(directories)) + draw(components)
        kind = draw(st.sampled_from(kinds))
        if path in taken or (kind == "hardlink" and not files):
            continue
        taken.add(path)
        link = draw(st.sampled_from(files)) if kind == "hardlink" else draw(components) if kind == "symlink" else b""
        text, raw = manifest.spell(path)
        target, raw_target = manifest.spell(link)
        entries.append(manifest.Entry(
            type=kind, path=text, raw_path=raw, mode=draw(st.integers(0, 0o7777)), uid=draw(owners), gid=draw(owners),
            mtime=draw(st.integers(-2**40, 2**40)), size=draw(st.integers(0, 2**60)) if kind == "file" else 0,
            sha256=draw(digests) if kind == "file" else "", target=target, raw_target=raw_target,
            xattrs=manifest.quoted(draw(attributes)) if kind in ("file", "directory") else {}))
        if kind == "directory":
            directories.append(path + b"/")
        elif kind == "file":
            files.append(path)
    return entries


descriptions = st.builds(
    dict, version=st.text(max_size=20), compatible=st.lists(st.text(max_size=10), max_size=3),
    floor=st.text(max_size=10), metadata=st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.text()
                                                         | st.integers(-2**53, 2**53), max_size=3),
    limits=st.builds(manifest.Limits, pre_install=st.floats(1, 1000)),
    health=st.lists(st.builds(manifest.Check, name=st.text(max_size=5), command=st.lists(st.text(max_size=5))),
                    max_size=2))


@quick
@given(entries=safe_entries(), described=descriptions)
def test_what_is_written_is_read_again(entries: list[manifest.Entry], described: dict[str, object]) -> None:
    written = manifest.Manifest(**described, name="fw-1", entries=entries)  # type: ignore[arg-type]
    data = manifest.encode(written)
    assert manifest.decode(data) == written
    assert manifest.encode(manifest.decode(data)) == data
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert list(manifest.stored_entries(Path(file.name))) == entries
        stored = manifest.stored_description(Path(file.name))
        assert {name: getattr(stored, name) for name in described} == described


@quick
@given(st.binary(min_size=1))
def test_any_path_is_spelled_and_read(raw: bytes) -> None:
    path, raw_path = manifest.spell(raw)
    assert manifest.Entry(type="file", path=path, raw_path=raw_path).name == raw
    assert bool(path) != bool(raw_path)


@quick
@given(attributes)
def test_attributes_come_back(values: dict[str, bytes]) -> None:
    assert manifest.Entry(type="file", xattrs=manifest.quoted(values)).attributes() == values


def test_a_manifest_that_others_wrote_on_one_line_is_read_too(tmp_path: Path) -> None:
    entries = [manifest.Entry(type="directory", path="."), manifest.Entry(type="fifo", path="a")]
    written = manifest.Manifest(name="fw", version="3", entries=entries)
    (tmp_path / "m").write_bytes(msgspec.json.encode(written).replace(b'{"version"', b'{"format":1,"version"'))
    assert list(manifest.stored_entries(tmp_path / "m")) == entries
    assert manifest.stored_description(tmp_path / "m").version == "3"


# --- refusals ---------------------------------------------------------------------------------------------------------


def entry(kind: manifest.Type = "file", path: str = "a", **more: object) -> manifest.Entry:
    return manifest.Entry(type=kind, path=path, **{"sha256": "0" * 64 if kind == "file" else "", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [
    entry(path=""), entry(path="/etc/passwd"), entry(path=".."), entry(path="../a"), entry(path="a/../../b"),
    entry(path="a/./b"), entry(path="a//b"), entry(path="a/"), entry(path="./a"), entry(path="."),
    entry(path="", raw_path="%2e%2e/a"), entry(path="", raw_path="%2Fetc"), entry(path="", raw_path="a%00b"),
    entry(path="fine", raw_path="../a"), entry(path="missing/parent"), entry(path="link/through"),
    entry(path="file/below"), entry(path="link"), entry(path="x" * 256), entry(path="d" + "/d" * 2001),
    entry(path=".fussy/manifest.json"), entry(path=".fussy"), entry("symlink", ".fussy", target="/etc"),
    entry(sha256=""), entry(sha256="A" * 64), entry(sha256="0" * 63), entry(sha256="0" * 64 + "\n"),
    entry(size=-1), entry(size=2**63), entry(mode=-1), entry(mode=0o10000), entry(uid=-1), entry(gid=2**32 - 1),
    entry(mtime=2**62), entry("symlink"), entry("symlink", raw_target="%00"), entry("hardlink", target="../x"),
    entry("hardlink", target="link"), entry("hardlink", target="a"), entry("hardlink", target="later"),
    entry("character", device=(1, 3)), entry("block"), entry(xattrs={"": "x"}), entry(xattrs={"user.a\0b": "x"}),
    entry(xattrs={"user." + "x" * 255: "x"}),
], ids=lambda one: f"{one.type}-{one.path[:20]}{one.raw_path}")
def test_unsafe_entries(wrong: manifest.Entry) -> None:
    before = [entry("directory", "."), entry("directory", ".fussy") if ".fussy/" in wrong.path else entry(path="zz"),
              entry("symlink", "link", target="/etc"), entry(path="file")]
    data = manifest.encode(manifest.Manifest(name="fw", entries=[*before, wrong, entry(path="later")]))
    with pytest.raises(BadBundle, match="cannot accept the manifest: .*; pack the firmware again"):
        manifest.decode(data)


@pytest.mark.parametrize("device", [(-1, 0), (0, -1), (2**31, 0), (0, 2**40)])
def test_device_numbers_that_do_not_exist(device: tuple[int, int]) -> None:
    assert manifest.Checker(devices=True).problems([entry("block", device=device)])
    assert not manifest.Checker(devices=True).problems([entry("block", device=(8, 1))])


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "a\0", "a\n", "-r", "current", "failsafe",
                                  "previous", "current~", " a", "a ", "é", "x" * 201, "a*", "$(a)"])
def test_names_no_release_can_have(name: str) -> None:
    assert manifest.check_name(name)
    with pytest.raises(BadBundle, match="cannot be the name of a release"):
        manifest.decode(manifest.encode(manifest.Manifest(name=name, entries=[])))


@pytest.mark.parametrize("name", ["firmware-2012-04-12T13.30.03.796749", "sample-setup", "a", "7", "_a", "a b",
                                  "v1.0~rc1+git:2@x", "x" * 200])
def test_names_a_release_can_have(name: str) -> None:
    assert not manifest.check_name(name)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"\xff"', b'{"name":"a"}', b'{"name":"a","entries":[{}]}',
                                  b'{"name":"a","entries":[],"unknown":1}', b'{"format":2,"name":"a","entries":[]}',
                                  b'{"name":"a","entries":[{"type":"socket","path":"a"}]}',
                                  b'{"name":"\\ud800","entries":[]}', b"[" * 100_000])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(BadBundle, match="cannot read the manifest"):
        manifest.decode(data)


def test_a_stored_manifest_that_was_cut(tmp_path: Path) -> None:
    data = manifest.encode(manifest.Manifest(name="fw", entries=[entry(path=str(i)) for i in range(3)]))
    path = tmp_path / "m"
    for size in range(len(data) - 2):
        path.write_bytes(data[:size])
        with pytest.raises(BadBundle):
            list(manifest.stored_entries(path))


def test_the_first_mistakes_are_told_and_the_others_counted() -> None:
    data = manifest.encode(manifest.Manifest(name="fw", entries=[entry(path=f"../{i}") for i in range(9)]))
    with pytest.raises(BadBundle) as raised:
        manifest.decode(data)
    assert "'../0'" in str(raised.value) and "'../4'" in str(raised.value)
    assert "'../5'" not in str(raised.value) and "(and 4 more)" in str(raised.value)


# --- nothing leads out of the release ---------------------------------------------------------------------------------

# Few words, so that paths, links and parents meet often.
words = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b".fussy", b"manifest.json", b"out", b"\xff", b"n\nl"])
hostile_paths = st.lists(words, min_size=1, max_size=4).map(b"/".join)


@st.composite
def hostile_entry(draw: st.DrawFn, outside: bytes = b"../../outside") -> tuple[manifest.Entry, bytes]:
    """Any entry, and content for it; links lead to other entries or to the directory OUTSIDE of the release."""
    path = draw(hostile_paths | st.sampled_from([outside, outside + b"/precious", b"a", b"a/b"]))
    target = draw(hostile_paths | st.sampled_from([outside, outside + b"/precious", b"/tmp", b"a", b".", b"a/b"]))
    kind = draw(st.sampled_from(["directory", "file", "hardlink", "symlink", "fifo"]))
    content = draw(st.sampled_from([b"", b"evil"]))
    text, raw = manifest.spell(path)
    link, raw_link = manifest.spell(target) if kind in ("hardlink", "symlink") else ("", "")
    return manifest.Entry(
        type=kind, path=text, raw_path=raw, mode=draw(st.sampled_from([0o755, 0o4777, 0])),  # type: ignore[arg-type]
        size=len(content) if kind == "file" else 0, target=link, raw_target=raw_link,
        sha256=manifest.digest(content) if kind == "file" else ""), content


@contextmanager
def beside_precious() -> Iterator[Path]:
    """Give a directory beside which lies what must not be touched, and check that it was not."""
    place = Path(tempfile.mkdtemp(prefix="fussy-hostile-"))
    try:
        (place / "outside").mkdir()
        (place / "outside/precious").write_text("precious")
        (place / "target").mkdir()
        before = facts(place)
        yield place / "target"
        assert facts(place) == before
    finally:
        shutil.rmtree(place)


def facts(place: Path) -> dict[str, tuple[object, ...]]:
    """Everything below PLACE but the target, and what would show that it was touched."""
    found: dict[str, tuple[object, ...]] = {"": tuple(sorted(os.listdir(place)))}
    for path in [*sorted((place / "outside").rglob("*")), place / "outside"]:
        there = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(there.st_mode) else b""
        found[str(path)] = (there.st_mode, there.st_uid, there.st_nlink, there.st_mtime_ns, there.st_ctime_ns, content)
    return found


def archive(members: list[tuple[manifest.Entry, bytes]], described: bytes | None) -> bytes:
    """Return a tar of MEMBERS as they are, however wrong, with DESCRIBED as its manifest."""
    parts = []
    if described is not None:
        own = manifest.Entry(type="file", path=manifest.PATH.decode(), size=len(described))
        parts += [tarball.head("fw", own), described, tarball.padding(len(described))]
    for one, content in members:
        parts += [tarball.head("fw", one), content if one.type == "file" else b"", tarball.padding(one.data_size)]
    return b"".join([*parts, tarball.END])


def unpacked(data: bytes, directory: Path) -> bool:
    """Unpack DATA into a new DIRECTORY; whether it was accepted."""
    blocks = iter([data])
    try:
        unpack.unpack_release(Source(lambda: next(blocks, b"")), directory, lambda *_: {}, most=1 << 20)
    except BadBundle:
        return False
    return True


def whole(release: Path) -> None:
    """Check that a release that was accepted holds no device; links to what is outside show in its facts."""
    for directory, _, files in os.walk(release):
        for file in files:
            there = os.lstat(os.path.join(directory, file))
            assert stat.S_IFMT(there.st_mode) in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO)


@thorough
@given(st.lists(hostile_entry(), max_size=6), st.booleans())
def test_no_manifest_leads_out(members: list[tuple[manifest.Entry, bytes]], with_top: bool) -> None:
    """The device decodes it or not; if it does, what it makes lies in the release."""
    entries = [one for one, _ in members]
    if with_top:
        entries.insert(0, manifest.Entry(type="directory", path=".", mode=0o755))
    described = manifest.encode(manifest.Manifest(name="fw", entries=entries))
    with beside_precious() as target:
        if unpacked(archive(members, described), target / "tree"):
            whole(target / "tree")
            for one, content in members:
                if one.type == "file":
                    assert (target / "tree" / os.fsdecode(one.name)).read_bytes() == content


@thorough
@given(st.lists(hostile_entry(), min_size=1, max_size=6))
def test_no_archive_without_a_manifest_leads_out(members: list[tuple[manifest.Entry, bytes]]) -> None:
    with beside_precious() as target:
        if unpacked(archive(members, None), target / "tree"):
            whole(target / "tree")
            manifest.decode((target / "tree/.fussy/manifest.json").read_bytes())


@thorough
@given(st.lists(hostile_entry(), max_size=5), st.lists(hostile_entry(), max_size=5))
def test_no_archive_that_differs_from_its_manifest_is_accepted(
    listed: list[tuple[manifest.Entry, bytes]], members: list[tuple[manifest.Entry, bytes]]
) -> None:
    described = manifest.encode(manifest.Manifest(name="fw", entries=[one for one, _ in listed]))
    with beside_precious() as target:
        if unpacked(archive(members, described), target / "tree"):
            wanted = {one.name: content for one, content in listed if one.type == "file"}
            for name, content in wanted.items():
                assert (target / "tree" / os.fsdecode(name)).read_bytes() == content


@thorough
@given(st.lists(st.tuples(st.sampled_from(["path", "linkpath", "size", "uid", "gid", "mtime", "SCHILY.xattr.user.a",
                                           "SCHILY.xattr.", "GNU.sparse.name", "hdrcharset"]),
                          st.text(st.sampled_from("fw/.a-0129e\0\n=é"), max_size=8)), max_size=4),
       st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE,
                        tarfile.CHRTYPE, b"V", b"M", b"\0", b"7"]))
def test_no_pax_record_leads_out(records: list[tuple[str, str]], kind: bytes) -> None:
    info = tarfile.TarInfo("fw/a")
    info.type, info.linkname = kind, "fw/b"
    lines = b""
    for name, value in records:
        line = f" {name}={value}\n".encode()
        length = len(line) + 1
        while length != len(line) + len(str(length)):
            length = len(line) + len(str(length))
        lines += str(length).encode() + line
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, len(lines)
    head = [extended.tobuf(tarfile.USTAR_FORMAT), lines, tarball.padding(len(lines))] if records else []
    data = b"".join([*head, info.tobuf(tarfile.USTAR_FORMAT), tarball.END])
    with beside_precious() as target:
        if unpacked(data, target / "tree"):
            whole(target / "tree")
