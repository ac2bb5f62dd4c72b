"""Deltas: the same release as from the full bundle, or a clear refusal, whatever the delta or its base are like."""

import filecmp
import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fussy import delta, gpg, manifest, oldfiles, pack, patch, tree, unpack, verify
from fussy.errors import BadBundle, FussyError, SystemSetup, UnusableDelta
from fussy.frames import Source, zstd
from fussy.target import find

from .conftest import Keys
from .firmware import Files, Firmware

pytest.importorskip("bsdiff4")

WORDS = random.Random(1).randbytes(200_000)
OLD: Files = {
    "bin/app": WORDS, "lib/libfoo.so.1.2": WORDS[:90_000] + b"1", "etc/conf": "a = 1\n" * 2000, "same": "same" * 500,
    "gone": "gone", "moved/from": WORDS[50_000:120_000], "empty": "", b"caf\xe9": "latin",
}
NEW: Files = {
    "bin/app": WORDS[:70_000] + b"new" + WORDS[70_000:150_000] + b"?" * 4000 + WORDS[150_100:],
    "lib/libfoo.so.1.3": WORDS[:40_000] + b"x" + WORDS[40_001:90_000] + b"22",
    "etc/conf": "a = 1\n" * 1000 + "b = 2\n" + "a = 1\n" * 1000, "same": "same" * 500,
    "moved/to": WORDS[50_000:120_000], "empty": "", "hollow": "", "fresh": "fresh", "fresh-copy": "fresh",
    b"caf\xe9": "latin 1",
}


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


def picture(release: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that can be seen of a release, but not when its manifest was written."""
    seen = {}
    for path in sorted(release.rglob("*")):
        facts = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        attributes = {name: os.getxattr(path, name, follow_symlinks=False)
                      for name in os.listxattr(path, follow_symlinks=False)}
        name = str(path.relative_to(release))
        time = 0 if name.startswith(".fussy") else facts.st_mtime_ns
        seen[name] = facts.st_mode, facts.st_uid, facts.st_gid, time, content, attributes
    return seen


def prepared(firmware: Firmware, old: Files = OLD, new: Files = NEW) -> tuple[Path, Path]:
    """Install OLD; return the delta from it to NEW, and the full bundle of NEW."""
    base = firmware.install(firmware.pack("fw-1", old))
    tree = firmware.tree("fw-2", new)
    return firmware.pack_tree(tree, base=base), firmware.pack_tree(tree)


def dress(tree: Path) -> None:
    """Give a tree what is not content: modes, owners, attributes, links."""
    (tree / "bin/app").chmod(0o4711)
    os.chown(tree / "etc/conf", 12, 34)
    (tree / "link").symlink_to("bin/app")
    os.link(tree / "bin/app", tree / "bin/again")
    os.utime(tree / "same", (1_000_000_000, 1_000_000_000))
    (tree / "etc").chmod(0o750)


def test_the_release_is_that_of_the_full_bundle(firmware: Firmware, tmp_path: Path) -> None:
    olds = firmware.pack("fw-1", OLD)
    tree = firmware.tree("fw-2", NEW)
    dress(tree)
    base = firmware.install(olds)
    made = firmware.pack_tree(tree, base=base)
    full = firmware.pack_tree(tree)
    assert made.name == f"fw-2.from-{manifest.digest((base / '.fussy/manifest.json').read_bytes())[:16]}.delta.gpg"
    by_delta = firmware.install(made)
    firmware.target = tmp_path / "other"
    firmware.install(olds)
    by_bundle = firmware.install(full)
    assert verify.damage(by_delta) == []
    assert picture(by_delta) == picture(by_bundle)
    assert made.stat().st_size < full.stat().st_size / 5


def test_what_is_there_is_linked_and_the_rest_written_once(firmware: Firmware) -> None:
    made, _ = prepared(firmware)
    release = firmware.install(made)
    base = firmware.target / "fw-1"
    assert (release / "same").samefile(base / "same")
    assert (release / "moved/to").samefile(base / "moved/from")
    assert (release / "bin/app").stat().st_nlink == 1


def test_plain_tools_open_it(firmware: Firmware) -> None:
    made, _ = prepared(firmware)
    packed = firmware.keys.gpg("--decrypt", str(made), home=firmware.keys.keyring).stdout
    plain = subprocess.run(["zstd", "-d"], input=packed, capture_output=True, check=True).stdout
    listed = subprocess.run(["tar", "-t"], input=plain, capture_output=True, check=True).stdout.decode().split()
    assert listed == ["fw-2/.fussy/delta.json", "fw-2/.fussy/delta/0"]


def test_only_the_mode_changed(firmware: Firmware) -> None:
    base = firmware.install(firmware.pack("fw-1", OLD))
    tree = firmware.tree("fw-2", OLD)
    (tree / "bin/app").chmod(0o700)
    made = firmware.pack_tree(tree, base=base)
    assert made.stat().st_size < 3000
    release = firmware.install(made)
    assert stat.S_IMODE((release / "bin/app").stat().st_mode) == 0o700
    assert verify.damage(release) == verify.damage(base) == []


def test_a_base_that_is_not_current(firmware: Firmware) -> None:
    made, _ = prepared(firmware)
    firmware.install(firmware.pack("fw-1b", {"bin/app": "another"}))
    assert verify.damage(firmware.install(made)) == []


def test_the_failsafe_as_base_shares_no_inode(firmware: Firmware) -> None:
    made, _ = prepared(firmware)
    firmware.run("failsafe")
    firmware.install(firmware.pack("fw-1b", {"bin/app": "another"}))
    firmware.run("clean")
    firmware.run("rollback", "failsafe")
    release = firmware.install(made)
    assert verify.damage(release) == []
    assert not (release / "same").samefile(firmware.target / "failsafe/same")


def refused(firmware: Firmware, made: Path) -> str:
    """Install a delta that can't be; return what is said. Nothing is changed by it."""
    before = picture(firmware.target)
    said = firmware.run("install", made, fails=25)
    assert "full bundle" in said
    assert len(said.splitlines()) == 1
    after = picture(firmware.target)
    assert {name: seen[0] for name, seen in before.items()} == {name: seen[0] for name, seen in after.items()}
    return said


def test_without_its_base(firmware: Firmware, tmp_path: Path) -> None:
    made, full = prepared(firmware)
    firmware.target = tmp_path / "other"
    firmware.install(firmware.pack("fw-1b", {"bin/app": "another"}))
    assert "is not in" in refused(firmware, made)
    assert verify.damage(firmware.install(full)) == []
    with pytest.raises(UnusableDelta):
        unpack.unpack(made, firmware.keys.keyring)


def test_a_delta_that_needs_more_memory_than_the_device_allows(firmware: Firmware) -> None:
    base = firmware.install(firmware.pack("fw-1", OLD))
    tree = firmware.tree("fw-2", NEW)
    made = firmware.pack_tree(tree, base=base, memory=9)
    assert refused(firmware, made) == (
        "fussy install: cannot install the delta: it needs 9 MiB of memory, 8 are allowed (--memory, or memory in "
        "update.toml); allow more, or install the full bundle\n")
    assert sorted(path.name for path in firmware.target.iterdir() if path.name[0] != ".") == ["current", "fw-1"]
    firmware.run("install", "--memory", "9", made)
    assert verify.damage(firmware.target / "fw-2") == []


def test_no_segment_is_larger_than_the_memory_allows(firmware: Firmware) -> None:
    base = delta.base_release(firmware.install(firmware.pack("fw-1", OLD)))
    scattered = bytearray(WORDS)
    scattered[::90] = bytes(byte ^ 1 for byte in scattered[::90])
    new = firmware.tree("fw-2", {"bin/app": bytes(scattered), "new": random.Random(2).randbytes(300_000)})
    found = tree.scan(os.fsencode(new))
    segments = [(size, len(segment)) for size, segment in delta.segments(list(delta.contents(base, found)), 1)]
    assert sum(size for size, _ in segments) == 500_000
    assert len(segments) >= 4
    assert max(size for _, size in segments) <= patch.largest_segment(1)


def alter_content(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"altered")


def alter_quietly(file: Path) -> None:
    """Alter a file as a bad flash does: nothing but its content tells."""
    facts = file.stat()
    alter_content(file)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def alter_kind(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def alter_to_link(file: Path) -> None:
    (file.parent / "elsewhere").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to("elsewhere")


def alter_parent(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))
    file.parent.symlink_to("elsewhere")


ALTERED = [alter_content, alter_quietly, alter_kind, alter_to_link, Path.unlink,
           lambda file: os.truncate(file, 10)]


@pytest.mark.parametrize(("name", "alter"), [
    *(("bin/app", alter) for alter in [*ALTERED, alter_parent]), *(("moved/from", alter) for alter in ALTERED)])
def test_an_altered_file_of_the_base(firmware: Firmware, alter: Callable[[Path], object], name: str) -> None:
    made, full = prepared(firmware)
    alter(firmware.target / "fw-1" / name)
    refused(firmware, made)
    assert verify.damage(firmware.install(full)) == []


def test_an_altered_manifest_of_the_base(firmware: Firmware) -> None:
    made, _ = prepared(firmware)
    with (firmware.target / "fw-1/.fussy/manifest.json").open("a") as file:
        file.write(" ")
    refused(firmware, made)


def test_a_damaged_base_makes_no_delta(firmware: Firmware) -> None:
    base = firmware.install(firmware.pack("fw-1", OLD))
    alter_content(base / "bin/app")
    with pytest.raises(SystemSetup, match="has other content"):
        firmware.pack("fw-2", NEW, base=base)
    with pytest.raises(FussyError, match="no manifest"):
        firmware.pack("fw-3", NEW, base=firmware.tree("bare", OLD))


def test_deltas_are_reproducible(firmware: Firmware, tmp_path: Path) -> None:
    base = delta.base_release(firmware.install(firmware.pack("fw-1", OLD)))
    tree = firmware.tree("fw-2", NEW)
    assert raw(base, tree) == raw(base, tree)


def test_deltas_from_several_bases_share_what_was_compared(firmware: Firmware, tmp_path: Path) -> None:
    """What changed from all bases alike is compared once; the deltas are what they are without that."""
    changed = {**OLD, "more": random.Random(3).randbytes(50_000)}
    bases = [delta.base_release(firmware.install(firmware.pack(f"fw-{number}", old)))
             for number, old in ((0, {**OLD, "bin/app": WORDS + b"0"}), (1, changed), (3, OLD))]
    tree = firmware.tree("fw-2", {**NEW, "more": changed["more"] + b"more"})
    kept = tmp_path / "kept"
    kept.mkdir()
    counts = []
    for base in bases:
        assert raw(base, tree, kept) == raw(base, tree)
        counts.append(len(list(kept.iterdir())))
    assert counts[0] and counts[1] - counts[0] == 2, "the app from another one, and more"
    assert counts[2] == counts[1], "nothing is left to be compared for the third"


def raw(base: delta.Base, directory: Path, kept: Path | None = None) -> bytes:
    """Return what is sealed in a delta."""
    found = tree.scan(os.fsencode(directory))
    described = manifest.encode(pack.describe(directory.name, found, version=None, compatible=()))
    return b"".join(part for _, part in delta.stream(base, directory.name, described, found, kept=kept))


class Bench:
    """A base release, and a way to apply to it whatever an enemy with the key could sign."""

    def __init__(self, firmware: Firmware) -> None:
        self.place = firmware.place
        release = firmware.install(firmware.pack("fw-1", OLD))
        self.target = find(firmware.target)
        self.base = delta.base_release(release)
        self.raw = raw(self.base, firmware.tree("fw-2", NEW))

    def apply(self, packed: bytes) -> None:
        blocks = iter([packed, b""])
        out = self.place / "out"
        subprocess.run(["rm", "-rf", out], check=True)
        unpack.unpack_release(Source(lambda: next(blocks, b"")), out, lambda *_: {}, most=None,
                              find=lambda digest: oldfiles.find(self.target, digest))

    def members(self) -> list[tuple[str, bytes]]:
        with tarfile.open(fileobj=io.BytesIO(zstd.decompress(self.raw))) as tar:
            return [(member.name, opened.read()) for member in tar if (opened := tar.extractfile(member))]

    def apply_members(self, members: Sequence[tuple[str, bytes]]) -> None:
        self.apply(zstd.compress(archive(members)))


def archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a tar of (name, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def bench(firmware: Firmware) -> Bench:
    return Bench(firmware)


def parts_of(segment: bytes) -> list[bytes]:
    start, parts = patch.PARTS.size, []
    for length in patch.PARTS.unpack_from(segment):
        parts.append(segment[start:start + length])
        start += length
    return parts


def segment_of(parts: Sequence[bytes]) -> bytes:
    return patch.PARTS.pack(*map(len, parts)) + b"".join(parts)


def packed(*numbers: int) -> bytes:
    return b"".join(map(delta.number, numbers))


def with_parts(**changes: Any) -> Callable[[bytes], bytes]:
    names = ["bases", "seeks", "adds", "copies", "changes", "literals"]

    def change(segment: bytes) -> bytes:
        parts = parts_of(segment)
        for name, value in changes.items():
            i = names.index(name)
            parts[i] = value(parts[i]) if callable(value) else value
        return segment_of(parts)

    return change


SEGMENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda segment: b"",
    "short": lambda segment: segment[:-1],
    "long": lambda segment: segment + b"\0",
    "lengths that lie": lambda segment: patch.PARTS.pack(*[2**32 - 1] * 6) + segment[patch.PARTS.size:],
    "no steps": with_parts(seeks=b"", adds=b"", copies=b""),
    "no bases": with_parts(bases=b""),
    "a base that is not there": with_parts(bases=packed(1, 10_000)),
    "a base that is a directory": with_parts(bases=packed(1, 2)),
    "a huge base": with_parts(bases=packed(2**62)),
    "no base where one is needed": with_parts(bases=lambda part: bytes(len(part))),
    "a number without end": with_parts(seeks=lambda part: b"\x80" * len(part)),
    "a huge number": with_parts(adds=lambda part: packed(2**62) + part[1:]),
    "an endless number": with_parts(adds=b"\xff" * 1000),
    "before the old file": with_parts(seeks=lambda part: packed(2 * 5 + 1) + part[1:]),
    "behind the old file": with_parts(seeks=lambda part: packed(2**40) + part[1:]),
    "steps that do nothing": with_parts(seeks=bytes(5000), adds=bytes(5000), copies=bytes(5000)),
    "fewer changes": with_parts(changes=lambda part: part[:-1]),
    "fewer literals": with_parts(literals=lambda part: part[:-1]),
    "other changes": with_parts(changes=lambda part: part[:-9] + b"?" + part[-8:]),
    "other literals": with_parts(literals=lambda part: part[:-1] + b"?"),
    "too large": lambda segment: segment + bytes(patch.largest_segment(patch.MEMORY)),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_hostile_segment(bench: Bench, name: str) -> None:
    head, segment = bench.members()
    with pytest.raises(BadBundle):
        bench.apply_members([head, (segment[0], SEGMENTS[name](segment[1]))])


def test_a_segment_has_no_more_steps_than_the_memory_allows(bench: Bench) -> None:
    head, (name, segment) = bench.members()
    for many, wrong in ((patch.most_steps(patch.MEMORY), "not the one it promises"),
                        (patch.most_steps(patch.MEMORY) + 1, "too many steps")):
        parts = with_parts(seeks=bytes(many), adds=bytes(many), copies=bytes([1]) * many, changes=b"",
                           literals=bytes(many))
        with pytest.raises(BadBundle, match=wrong):
            bench.apply_members([head, (name, parts(segment))])


HEADS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no JSON": lambda head: b"{",
    "another format": lambda head: head | {"format": 2},
    "an unknown field": lambda head: head | {"more": 1},
    "another manifest": lambda head: head | {"manifest": "0" * 64},
    "a huge manifest": lambda head: head | {"size": 1 << 40},
    "a negative size": lambda head: head | {"size": -1},
    "a shorter manifest": lambda head: head | {"size": head["size"] - 1},
    "a longer manifest": lambda head: head | {"size": head["size"] + 1},
    "no memory": lambda head: head | {"memory": 0},
    "more memory than there may be": lambda head: head | {"memory": patch.MOST_MEMORY + 1},
    "too long": lambda head: b" " * 100_000,
}


@pytest.mark.parametrize("name", HEADS)
def test_a_hostile_head(bench: Bench, name: str) -> None:
    (path, content), segment = bench.members()
    made = HEADS[name](json.loads(content))
    with pytest.raises(BadBundle):
        bench.apply_members([(path, made if isinstance(made, bytes) else json.dumps(made).encode()), segment])


def test_hostile_members(bench: Bench) -> None:
    head, segment = bench.members()
    for members in ([head], [head, ("fw-2/.fussy/delta/1", segment[1])], [head, ("fw-2/bin/app", segment[1])],
                    [head, segment, ("fw-2/.fussy/delta/1", segment[1])], [head, segment, segment], [segment, head],
                    [("other/.fussy/delta.json", head[1]), segment]):
        with pytest.raises(BadBundle):
            bench.apply_members(members)
    with pytest.raises(UnusableDelta):
        base = json.loads(head[1]) | {"base": "../" * 10 + "etc"}
        bench.apply_members([(head[0], json.dumps(base).encode()), segment])
    bench.apply_members([head, segment])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**9), bits=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_found(bench: Bench, place: int, bits: int, cut: bool) -> None:
    plain = bytearray(zstd.decompress(bench.raw))
    place %= len(plain)
    if cut:
        del plain[place:]
    else:
        plain[place] ^= bits
    try:
        bench.apply(zstd.compress(plain, 1))
    except (BadBundle, UnusableDelta):
        return
    made = (bench.place / "out/.fussy/manifest.json").read_bytes()  # padding and times of the tar do not matter
    assert manifest.digest(made) == json.loads(bench.members()[0][1])["manifest"]


def resealed(firmware: Firmware, members: Sequence[tuple[str, bytes]]) -> Path:
    """Sign and encrypt what an enemy who has the key might."""
    made = firmware.place / "hostile.delta.gpg"
    made.unlink(missing_ok=True)
    with gpg.seal(made, sign_with=firmware.keys.signer, encrypt_for=[firmware.keys.device],
                  home=firmware.keys.home) as pipe:
        pipe.write(zstd.compress(archive(members)))
    return made


HOSTILE = ["other changes", "other literals", "behind the old file", "a huge number", "too large", "a huge base"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_delta_with_a_good_signature(firmware: Firmware, name: str) -> None:
    bench = Bench(firmware)
    head, segment = bench.members()
    made = resealed(firmware, [head, (segment[0], SEGMENTS[name](segment[1]))])
    before = picture(firmware.target)
    for verb in ("install", "verify"):
        said = firmware.run(verb, made, fails=21)
        assert len(said.splitlines()) == 1 and ": cannot " in said
    assert picture(firmware.target).keys() == before.keys()


def test_verify_applies_a_delta_to_its_base(firmware: Firmware, tmp_path: Path) -> None:
    made, full = prepared(firmware)
    before = picture(firmware.target)
    assert f"{made}: good (fw-2, 5 files, signed by" in firmware.run("verify", made)
    assert picture(firmware.target) == before
    alter_content(firmware.target / "fw-1/bin/app")
    assert "of its base release" in firmware.run("verify", made, fails=25)
    firmware.target = tmp_path / "other"
    firmware.install(full)
    assert "what it makes can't be checked" in firmware.run("verify", made)


BLOBS = st.sampled_from([b"", b"a", b"\0" * 70_000, WORDS[:30_000], WORDS[:15_000] + b"!" + WORDS[15_000:30_000],
                         WORDS[10_000:60_000], bytes(255 - byte for byte in WORDS[:30_000]), WORDS[:1000] * 20])
TREES = st.dictionaries(st.sampled_from(["a", "b", "lib1", "lib2", "d/a", "d/b", "e/lib1", "e/lib3"]), BLOBS,
                        min_size=1)


@settings(max_examples=25, deadline=None)
@given(old=TREES, new=TREES, rest=st.binary(max_size=300), part=st.sampled_from([2000, 9000, 1 << 20]))
def test_any_tree_from_any_tree(old: Files, new: Files, rest: bytes, part: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="fussy-test-") as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(delta, "segment_size", lambda memory: part)
        patched.setattr(delta, "_WINDOW", 20 * part)
        place = Path(name)
        for release, files in (("t/fw-1", old), ("trees/fw-2", {**new, "rest": rest})):
            for path, content in files.items():
                file = place / release / str(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        for path in (place / "trees/fw-2").rglob("*"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        keep_manifest(place / "t/fw-1")
        packed = raw(delta.base_release(place / "t/fw-1"), place / "trees/fw-2")
        blocks = iter([packed, b""])
        unpack.unpack_release(Source(lambda: next(blocks, b"")), place / "out", lambda *_: {}, most=None,
                              find=lambda digest: oldfiles.find(find(place / "t"), digest))
        assert verify.damage(place / "out") == []
        keep_manifest(place / "trees/fw-2")
        assert picture(place / "out") == picture(place / "trees/fw-2")


def keep_manifest(release: Path) -> None:
    """Give a directory the manifest that it would have as an installed release."""
    found = tree.scan(os.fsencode(release))
    described = manifest.encode(pack.describe(release.name, found, version=None, compatible=()))
    (release / ".fussy").mkdir()
    (release / ".fussy/manifest.json").write_bytes(described)


def large(number: int, size: int) -> Iterator[bytes]:
    """Yield SIZE bytes that do not compress, with changes and a shift that depend on NUMBER."""
    for i in range(size >> 20):
        block = random.Random(i).randbytes(1 << 20)
        if number and i in (3, 4):
            block = block[:1000] + b"changed" + block[1007:]
        if number and i == (size >> 20) - 2:
            block = b"shifted" + block
        yield block


@pytest.mark.slow
def test_files_larger_than_memory_allows(firmware: Firmware) -> None:
    """A file of 110 MiB, installed with less than 64 MiB in each process, and still less where that was asked for."""
    trees = []
    for number in (0, 1):
        made = firmware.tree(f"fw-{number + 1}", {"small": str(number)})
        with (made / "large").open("wb") as file:
            file.writelines(large(number, 110 << 20))
        trees.append(made)
    base = firmware.install(firmware.pack_tree(trees[0], compress="zstd"))
    peaks = {memory: peak_of_installing(firmware, trees[1], base, memory) for memory in (1, patch.MEMORY)}
    assert peaks[patch.MEMORY] < 64 << 10
    assert 2 << 10 < peaks[patch.MEMORY] - peaks[1] < 8 << 10


def peak_of_installing(firmware: Firmware, made_from: Path, base: Path, memory: int) -> int:
    """Install a delta that may need MEMORY MiB; return the most memory it took, in KiB."""
    made = firmware.pack_tree(made_from, base=base, memory=memory)
    assert made.stat().st_size < 200_000
    # VmHWM is of this program alone; ru_maxrss would begin with the memory of the one that starts it
    code = ("from pathlib import Path; from fussy import install; "
            f"print(install.install_release(Path({str(made)!r}), Path({str(firmware.keys.keyring)!r}), "
            f"Path({str(firmware.target)!r}), memory={memory})); "
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    release, peak = done.stdout.splitlines()
    assert filecmp.cmp(made_from / "large", Path(release, "large"), shallow=False)
    made.unlink()
    return int(peak)
