"""What must be refused: one clear line, a distinct exit code, and nothing changed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from fussy import frames, manifest, pieces, state, tree
from fussy.cli import fussy_command
from fussy.errors import BadBundle, FussyError, HookFailed, Incompatible, NoSpace, SystemSetup, Untrusted
from fussy.target import Target

from .conftest import Keys
from .firmware import Firmware


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    """A target with one release in it."""
    made = Firmware(tmp_path, keys)
    made.install(made.pack("fw-1", {"a": "1", "bin/app": "one"}, version="1.0"))
    return made


def snapshot(target: Path) -> list[tuple[str, str]]:
    """Return the names below TARGET with what they hold, without the log and lock."""
    return [(str(path.relative_to(target)), os.readlink(path) if path.is_symlink() else
             path.read_bytes().hex() if path.is_file() else "")
            for path in sorted(target.rglob("*")) if path.name not in ("lock", "staging")]


def refused(firmware: Firmware, bundle: Path, error: type[FussyError], words: str, **options: Any) -> None:
    """Check that BUNDLE is refused with ERROR and WORDS, by the function and the command, and nothing has changed."""
    before = snapshot(firmware.target)
    with pytest.raises(error, match=words) as caught:
        firmware.install(bundle, **options)
    assert type(caught.value) is error
    assert str(caught.value).startswith("cannot ")
    assert "\n" not in str(caught.value)
    assert snapshot(firmware.target) == before
    arguments = [word for board in options.get("boards", []) for word in ("--board", board)]
    output = firmware.run("install", bundle, *arguments, fails=error.exit_code)
    assert output.startswith("fussy install: cannot ")
    assert output.count("\n") == 1, output
    assert snapshot(firmware.target) == before


def test_trust(firmware: Firmware) -> None:
    keys = firmware.keys
    good = firmware.pack("fw-2", {"a": "2"})
    message = good.read_bytes()
    signed = {"unsigned": ["--encrypt", "-r", keys.device], "foreign": ["--sign", "-u", keys.foreign],
              "weak": ["--sign", "-u", keys.signer, "--digest-algo", "SHA1"],
              "stranger": ["--sign", "-u", keys.signer, "--encrypt", "-r", keys.stranger]}
    content = shutil.which("true") or "/bin/true"
    for name, arguments in signed.items():
        bundle = firmware.place / f"{name}.gpg"
        keys.gpg(*arguments, "--output", str(bundle), content)
        refused(firmware, bundle, Untrusted, "cannot")
    for name, spoilt in {"cut": message[:-40], "doubled": message * 2, "empty": b"", "text": b"hello",
                         "flipped": bytes([*message[:-300], message[-300] ^ 1, *message[-299:]])}.items():
        bundle = firmware.place / f"{name}.gpg"
        bundle.write_bytes(spoilt)
        refused(firmware, bundle, Untrusted, "cannot")
    refused(firmware, firmware.place / "absent.gpg", SystemSetup, "No such file")


@pytest.mark.parametrize("size", [1, 3 << 20], ids=["held", "read again"])
def test_what_was_verified_is_what_is_unpacked(firmware: Firmware, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The bundle is exchanged for another good one after it was verified."""
    from fussy.gpg import Keyring

    content = os.urandom(size)
    good, other = firmware.pack("fw-2", {"a": content}), firmware.pack("fw-3", {"a": "3"})
    verify = Keyring.verify

    def exchange(*arguments: Any, **options: Any) -> Any:
        verdict = verify(*arguments, **options)
        with good.open("r+b") as file:
            file.write(other.read_bytes())
            file.truncate()
        return verdict

    monkeypatch.setattr(Keyring, "verify", exchange)
    if size > 1:
        with pytest.raises(Untrusted, match="changed while it was read"):
            firmware.install(good)
        assert not (firmware.target / "fw-2").exists()
    else:
        assert (firmware.install(good) / "a").read_bytes() == content
    assert not (firmware.target / "fw-3").exists()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


TOP = member("fw-2", tarfile.DIRTYPE)
HOSTILE: dict[str, list[Any]] = {
    "absolute": [TOP, member("/tmp/evil")],
    "dot-dot": [TOP, member("fw-2/../evil")],
    "dot-dot-top": [member("..", tarfile.DIRTYPE), member("../evil")],
    "two-tops": [TOP, member("other/file")],
    "through-a-link": [TOP, member("fw-2/out", tarfile.SYMTYPE, "/tmp"), member("fw-2/out/evil")],
    "over-a-link": [TOP, member("fw-2/out", tarfile.SYMTYPE, "/tmp/evil"), member("fw-2/out")],
    "hard-link-out": [TOP, member("fw-2/hosts", tarfile.LNKTYPE, "/etc/hosts")],
    "hard-link-up": [TOP, member("fw-2/hosts", tarfile.LNKTYPE, "fw-2/../../fw-1/a")],
    "hard-link-to-link": [TOP, member("fw-2/l", tarfile.SYMTYPE, "/etc/hosts"), member("fw-2/h", tarfile.LNKTYPE,
                                                                                     "fw-2/l")],
    "device": [TOP, member("fw-2/sda", tarfile.BLKTYPE)],
    "twice": [TOP, (member("fw-2/a"), b"1"), (member("fw-2/a"), b"2")],
    "no-parent": [TOP, member("fw-2/dir/file")],
    "file-as-parent": [TOP, member("fw-2/a"), member("fw-2/a/b")],
    "called-current": [member("current", tarfile.DIRTYPE)],
    "called-dash": [member("-rf", tarfile.DIRTYPE)],
    "newline-name": [member("fw\n2", tarfile.DIRTYPE)],
    "manifest-is-a-link": [TOP, member("fw-2/.fussy", tarfile.SYMTYPE, "/tmp")],
    "contiguous-volume": [TOP, member("fw-2/v", b"V")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(firmware: Firmware, name: str) -> None:
    bundle = firmware.pack_members(name, HOSTILE[name])
    refused(firmware, bundle, BadBundle, "cannot unpack")
    assert not Path("/tmp/evil").exists()


def describe(firmware: Firmware, change: Callable[[manifest.Manifest], manifest.Manifest]) -> Path:
    """Return a signed bundle whose manifest is not what fussy-pack would write."""
    root = firmware.tree("fw-2", {"a": "1" * 100, "b": "2" * 100})
    found = tree.scan(os.fsencode(root))
    described = change(manifest.Manifest(name="fw-2", entries=[item.entry for item in found]))
    cut = pieces.cut("fw-2", manifest.encode(described), found)
    return firmware.seal("fw-2", b"".join(frame for _, frame in pieces.compressed(cut, frames.zstd_frame)))


def with_entry(index: int, **facts: Any) -> Callable[[manifest.Manifest], manifest.Manifest]:
    def change(described: manifest.Manifest) -> manifest.Manifest:
        entries = list(described.entries)
        entries[index] = msgspec.structs.replace(entries[index], **facts)
        return msgspec.structs.replace(described, entries=entries)

    return change


def more(*added: manifest.Entry) -> Callable[[manifest.Manifest], manifest.Manifest]:
    return lambda described: msgspec.structs.replace(described, entries=[*described.entries, *added])


LYING: dict[str, tuple[Callable[[manifest.Manifest], manifest.Manifest], str]] = {
    "other content": (with_entry(1, sha256="0" * 64), "not what the manifest says"),
    "other size": (with_entry(1, size=99), "not what the manifest says"),
    "a file that is not there": (more(manifest.Entry(type="file", path="c", sha256="0" * 64)), "1 files of its"),
    "a file that is not listed": (lambda m: msgspec.structs.replace(m, entries=m.entries[:-1]), "does not list it"),
    "another name": (lambda m: msgspec.structs.replace(m, name="fw-3"), "manifest is of 'fw-3'"),
    "a newer format": (lambda m: msgspec.structs.replace(m, format=2), "install a newer fussy first"),
    "a path out": (with_entry(1, path="../a"), "leads out of the release"),
    "no digest": (with_entry(1, sha256="short"), "no SHA-256"),
    "a device": (more(manifest.Entry(type="block", path="sda")), "device node"),
    "a link as parent": (more(manifest.Entry(type="symlink", path="l", target="/tmp"),
                              manifest.Entry(type="file", path="l/x", sha256="0" * 64)), "parent is not a directory"),
    "a hard link out": (more(manifest.Entry(type="hardlink", path="h", target="../fw-1/a")), "hard link"),
}


@pytest.mark.parametrize("name", LYING)
def test_lying_manifests(firmware: Firmware, name: str) -> None:
    change, words = LYING[name]
    refused(firmware, describe(firmware, change), BadBundle, words)


def test_devices_come_when_the_manifest_allows_them(firmware: Firmware) -> None:
    root = firmware.tree("fw-2", {"a": "1"}, {"devices": True})
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    firmware.install(firmware.pack_tree(root))
    assert os.stat(firmware.target / "fw-2/null").st_rdev == os.makedev(1, 3)


def test_devices_are_not_packed_unannounced(firmware: Firmware) -> None:
    root = firmware.tree("fw-2", {"a": "1"})
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    with pytest.raises(BadBundle, match="device node"):
        firmware.pack_tree(root)


def test_bombs(firmware: Firmware) -> None:
    """A small bundle that would fill the disk or the memory is bounded by what its manifest says."""
    huge = describe(firmware, with_entry(1, size=10**15))
    refused(firmware, huge, NoSpace, r"it needs \d+\.\d MB in .* MB are free")
    wide = frames.zstd.compress(b"\0" * 5_000_000, options={frames.zstd.CompressionParameter.window_log: 27})
    refused(firmware, firmware.seal("wide", wide), BadBundle, "cannot")
    header = frames._ZSTD_HEAD + frames._FACTS.pack(100, 1 << 30, frames.NO_ENTRY, 0)
    refused(firmware, firmware.seal("frame", header + bytes(100)), BadBundle, "a frame of 1073741824 bytes")
    short = frames._ZSTD_HEAD + frames._FACTS.pack(len(wide), 10, frames.NO_ENTRY, 0) + wide
    refused(firmware, firmware.seal("lying-frame", short), BadBundle, "another length")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8b\x08\0garbage garbage garbage", b"(\xb5/\xfdgarbage",
                                     b"x" * 600, bytes(1024)], ids=repr)
def test_signed_garbage(firmware: Firmware, content: bytes) -> None:
    refused(firmware, firmware.seal("garbage", content), BadBundle, "cannot")


def test_damaged_in_any_place(firmware: Firmware) -> None:
    """A signed bundle whose inner bytes were damaged before it was signed: refused, or harmless, never wrong."""
    root = firmware.tree("fw-2", {"a": "1" * 500, "b": os.urandom(500)})
    found = tree.scan(os.fsencode(root))
    described = manifest.encode(manifest.Manifest(name="fw-2", entries=[item.entry for item in found]))
    for compress in (frames.gzip_frame, frames.zstd_frame):
        sound = b"".join(frame for _, frame in pieces.compressed(pieces.cut("fw-2", described, found), compress))
        for position in range(0, len(sound), 23):
            spoilt = bytearray(sound)
            spoilt[position] ^= 0x41
            try:
                _unpack(bytes(spoilt), firmware.place / "out")
            except FussyError:
                continue
            assert (firmware.place / "out/a").read_text() == "1" * 500
            assert (firmware.place / "out/b").read_bytes() == (root / "b").read_bytes()


def _unpack(content: bytes, directory: Path) -> None:
    from fussy.unpack import unpack_release

    shutil.rmtree(directory, ignore_errors=True)
    rest = iter([content])
    unpack_release(frames.Source(lambda: next(rest, b"")), directory, lambda *_: {}, most=10**6)


COMPATIBILITY: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "wrong board": ({"compatible": ["board-x"]}, {"boards": ["board-y"]}, "is for board-x, this board is board-y"),
    "unknown board": ({"compatible": ["board-x"]}, {}, "does not know its board"),
    "old installer": ({"release": {"installer": "99.0"}}, {}, "needs fussy 99.0"),
    "too big a step": ({"release": {"upgrade_from": "1.5"}}, {}, "can follow 1.5 or newer"),
}


@pytest.mark.parametrize("name", COMPATIBILITY)
def test_incompatible(firmware: Firmware, name: str) -> None:
    options, installing, words = COMPATIBILITY[name]
    refused(firmware, firmware.pack("fw-2", {"a": "2"}, **options), Incompatible, words, **installing)


def test_below_the_security_floor(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-3", {"a": "3"}, release={"version": "3.0", "floor": "2.0"}))
    refused(firmware, firmware.pack("fw-2", {"a": "2"}, version="1.9"), Incompatible, "accepts 2.0 or newer")
    refused(firmware, firmware.pack("fw-0", {"a": "0"}), Incompatible, r"version \(none\)")
    firmware.install(firmware.pack("fw-4", {"a": "4"}, version="2.5"))
    refused(firmware, firmware.bundles["fw-2"], Incompatible, "accepts 2.0 or newer")
    assert "--below-floor" in firmware.run("rollback", "fw-1", fails=22)
    firmware.run("rollback", "fw-1", "--below-floor")


@pytest.mark.parametrize(("hook", "mode", "words"), [
    ("#!/no/such/interpreter\n", 0o755, "its interpreter /no/such/interpreter is not on this device"),
    ("#!/bin/sh\nexit 0\n", 0o644, "it has no x bit"),
    ("no shebang\n", 0o755, "neither a program nor a script"),
    ("", 0o755, "neither a program nor a script"),
])
@pytest.mark.parametrize("name", [".pre-install", ".post-install"])
def test_a_hook_that_cannot_be_started(firmware: Firmware, name: str, hook: str, mode: int, words: str) -> None:
    tree_of_two = firmware.tree("fw-2", {name: hook})
    (tree_of_two / name).chmod(mode)
    refused(firmware, firmware.pack_tree(tree_of_two), HookFailed, words)


def test_too_little_space(firmware: Firmware, small_disk: Path) -> None:
    firmware.target = small_disk / "opt"
    firmware.install(firmware.pack("fw-a", {"a": os.urandom(3_000_000)}))
    large, many = {"a": os.urandom(9_000_000)}, {f"f{i}": "" for i in range(500)}
    refused(firmware, firmware.pack("fw-b", large), NoSpace, r"it needs 1\d\.\d MB in .* MB are free")
    refused(firmware, firmware.pack("fw-c", many), NoSpace, r"it needs 501 inodes in .* are free")
    by_hand = firmware.pack_by_hand("fw-d", {"a": os.urandom(9_000_000)})
    refused(firmware, by_hand, NoSpace, "are free|is full")
    # what is shared needs no space
    kept = {"a": (firmware.target / "fw-a/a").read_bytes()}
    for i in range(4):
        firmware.install(firmware.pack(f"fw-e{i}", {**kept, "v": str(i)}))


def test_a_disk_that_fills_up_meanwhile(firmware: Firmware, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fussy import preflight

    firmware.target = small_disk / "opt"
    firmware.install(firmware.pack("fw-a", {"a": "1"}))
    monkeypatch.setattr(preflight, "check_space", lambda *arguments: None)
    with pytest.raises(NoSpace, match="is full"):
        firmware.install(firmware.pack("fw-b", {"a": os.urandom(14_000_000)}))
    assert os.readlink(firmware.target / "current") == "fw-a"
    assert list((firmware.target / ".fussy/staging").iterdir()) == []
    firmware.install(firmware.pack("fw-c", {"a": "3"}))


def test_a_read_only_target(firmware: Firmware, small_disk: Path) -> None:
    firmware.target = small_disk / "opt"
    firmware.install(firmware.pack("fw-a", {"a": "1"}))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        refused(firmware, firmware.pack("fw-b", {"a": "2"}), SystemSetup, "Read-only file system; make it writable")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_a_target_across_file_systems(firmware: Firmware, small_disk: Path) -> None:
    private = firmware.target / ".fussy"
    subprocess.run(["mount", "--bind", small_disk, private], check=True)
    try:
        with pytest.raises(SystemSetup, match="another file system"):
            firmware.install(firmware.pack("fw-2", {"a": "2"}))
    finally:
        subprocess.run(["umount", private], check=True)


def test_a_volatile_overlay(firmware: Firmware, tmp_path: Path) -> None:
    layers = tmp_path / "layers"
    subprocess.run(["mkdir", "-p", layers / "lower", layers / "merged", layers / "fs"], check=True)
    # overlayfs does not stack on every file system that tests may run on; a tmpfs always serves
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", layers / "fs"], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mkdir", layers / "fs/upper", layers / "fs/work"], check=True)
        options = f"lowerdir={layers}/lower,upperdir={layers}/fs/upper,workdir={layers}/fs/work,volatile"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, layers / "merged"],
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no volatile overlay here: {done.stderr.strip()}")
        try:
            with pytest.raises(SystemSetup, match="volatile overlay"):
                Firmware.install(_moved(firmware, layers / "merged/opt"), firmware.pack("fw-2", {"a": "2"}))
        finally:
            subprocess.run(["umount", layers / "merged"], check=True)
    finally:
        subprocess.run(["umount", layers / "fs"], check=True)


def _moved(firmware: Firmware, target: Path) -> Firmware:
    firmware.target = target
    return firmware


def test_a_busy_target(firmware: Firmware) -> None:
    holder = subprocess.Popen(["flock", firmware.target / ".fussy/lock", "-c", "echo held; sleep 30"],
                              stdout=subprocess.PIPE, start_new_session=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        output = firmware.run("clean", fails=5)
    finally:
        os.killpg(holder.pid, 9)
        holder.communicate()
    assert "another fussy command works on it" in output


def test_current_that_leads_out(firmware: Firmware, tmp_path: Path) -> None:
    (firmware.target / "current").unlink()
    (firmware.target / "current").symlink_to(tmp_path)
    with pytest.raises(SystemSetup, match="which is not in"):
        firmware.install(firmware.pack("fw-2", {"a": "2"}))


def test_a_state_on_a_dead_sector_is_put_aside(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    read, dead = Path.read_bytes, firmware.target / ".fussy/state.json"

    def rotten(path: Path) -> bytes:
        if path == dead and path.stat().st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    inode = dead.stat().st_ino
    monkeypatch.setattr(Path, "read_bytes", rotten)
    firmware.install(firmware.pack("fw-2", {"a": "2"}))
    assert state.load(Target(firmware.target)).previous == "fw-1"
    assert dead.with_name("state.json.damaged").stat().st_ino == inode


def test_a_state_that_cannot_be_read_is_put_aside(firmware: Firmware) -> None:
    (firmware.target / ".fussy/state.json").write_text("{ not json")
    firmware.install(firmware.pack("fw-2", {"a": "2"}))
    assert (firmware.target / ".fussy/state.json.damaged").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["-r", "absent"], "not a directory"),
    (["-r", "current"], "cannot be the name of a release"),
    (["-r", "-x"], "cannot be the name of a release"),
    (["-r", "tree", "-e", "nobody@example.org"], "nobody@example.org"),
    (["-r", "tree", "-k", "nobody@example.org"], "nobody@example.org"),
])
def test_what_pack_refuses(tmp_path: Path, keys: Keys, arguments: list[str], words: str) -> None:
    for name in ("tree", "current", "-x"):
        (tmp_path / name).mkdir()
    done = subprocess.run([sys.executable, "-m", "fussy", "pack", *arguments, "-o", "out"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "GNUPGHOME": str(keys.home)})
    assert done.returncode in (21, 40)
    assert done.stderr.startswith("fussy pack: cannot ") and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_a_description_with_mistakes_is_not_packed(firmware: Firmware) -> None:
    root = firmware.tree("fw-2", {"a": "1", ".fussy/release.json": json.dumps({"compatible": "board-x"})})
    with pytest.raises(BadBundle, match=r"\$\.compatible"):
        firmware.pack_tree(root)


@pytest.mark.parametrize("verb", ["clean", "rollback", "failsafe", "recover", "confirm", "reject", "trial", "check"])
def test_only_an_install_makes_a_target(tmp_path: Path, verb: str) -> None:
    """A name that was mistyped is told, and nothing comes of it."""
    place = tmp_path / "fimware"
    done = CliRunner().invoke(fussy_command, [verb, "-t", str(place), "-l", str(tmp_path / "log")])
    assert (done.exit_code, done.output) == (
        40, f"fussy {verb}: cannot find the target {place}: no such directory; name another with --target\n")
    assert not place.exists()
