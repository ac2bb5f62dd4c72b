"""Packing: the same tree gives the same bytes, plain tools open them, and a bundle is there only when complete."""

import gzip
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fussy import manifest, tree
from fussy.errors import FussyError

from .conftest import Keys
from .firmware import Firmware


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


def opened(keys: Keys, bundle: Path, at: str | None = None) -> bytes:
    """What plain gpg makes of a bundle: the compressed archive."""
    return keys.gpg("--decrypt", home=keys.keyring, text=bundle.read_bytes(), at=at).stdout


def fussy_pack(keys: Keys, *arguments: str | Path, at: str | None = None,
               cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("fussy-pack")), *map(str, arguments)]
    if at:
        command = ["faketime", "-f", at, *command]
    environment = {**os.environ, "GNUPGHOME": str(keys.home)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=cwd)


def rich(top: Path, names: list[str]) -> Path:
    """A tree whose files are made in the order of NAMES."""
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name) * 50)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (top / "link").symlink_to("a")
    os.link(top / "a", top / "z-hard")
    os.setxattr(top / "a", "user.note", b"\xff\0")
    (top / "a").chmod(0o4750)
    os.utime(top / "link", (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    for directory, _, _ in os.walk(top):
        os.utime(directory, (1_700_000_000, 1_700_000_000))
    return top


NAMES = ["a", "b/c", "b/d e", "B/f", "é", "b/sub/g", "new\nline", os.fsdecode(b"\xff")]


# --- the same bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is missing: install it")
@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_the_same_tree_gives_the_same_archive_elsewhere_and_later(keys: Keys, tmp_path: Path, compress: str) -> None:
    one = rich(tmp_path / "one/fw", NAMES)
    other = rich(tmp_path / "in an other/place/fw", NAMES[::-1])
    archives = []
    for top, at in ((one, None), (other, "+40d")):
        (tmp_path / "out" / str(at)).mkdir(parents=True)
        done = fussy_pack(keys, "-r", top, "-e", keys.device, "-k", keys.signer, "-z", compress,
                          "-o", tmp_path / "out" / str(at), at=at)
        assert done.returncode == 0, done.stderr
        archives.append(opened(keys, Path(done.stdout.strip()), at="+41d" if at else None))
    assert archives[0] == archives[1]


def test_the_manifest_is_the_first_member(firmware: Firmware) -> None:
    bundle = firmware.pack_tree(rich(firmware.place / "fw-1", NAMES), version="3.1", compatible=["board"])
    with tarfile.open(fileobj=io.BytesIO(opened(firmware.keys, bundle)), mode="r:gz") as archive:
        members = archive.getmembers()
        file = archive.extractfile(members[0])
        assert file
        described = manifest.decode(file.read())
    assert members[0].name == "fw-1/.fussy/manifest.json"
    assert (described.format, described.name, described.version, described.compatible) == (1, "fw-1", "3.1", ["board"])
    assert ["fw-1" if entry.name == b"." else f"fw-1/{os.fsdecode(entry.name)}" for entry in described.entries] == \
           [member.name for member in members[1:]]


def test_a_release_that_is_packed_again_leaves_its_manifest(firmware: Firmware) -> None:
    first = opened(firmware.keys, firmware.pack_tree(rich(firmware.place / "fw", NAMES)))
    firmware.install(firmware.bundles["fw"])
    again = firmware.pack_tree(firmware.target / "fw")
    names = {entry.name for entry in manifest.stored_entries(firmware.target / "fw/.fussy/manifest.json")}
    with tarfile.open(fileobj=io.BytesIO(opened(firmware.keys, again)), mode="r:gz") as archive:
        assert len(archive.getmembers()) == len(names) + 2  # the manifest, and the directory it lies in
    assert gzip.decompress(first)


# --- plain tools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compress", "option", "suffix"), [("gzip", "-z", "gz"), ("zstd", "--zstd", "zst")])
def test_gpg_and_tar_give_the_tree(firmware: Firmware, compress: str, option: str, suffix: str) -> None:
    top = rich(firmware.place / "fw-1", NAMES)
    (top / "large").write_bytes(os.urandom(3_000_000))
    bundle = firmware.pack_tree(top, compress=compress)
    assert bundle.name == f"fw-1.tar.{suffix}.gpg"
    out = firmware.place / "out"
    out.mkdir()
    shell = 'gpg --batch --quiet --decrypt "$1" | tar -x "$2" -p --xattrs --delay-directory-restore -C "$3"'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell, "bash", bundle, option, out], check=True,
                          env={**os.environ, "GNUPGHOME": str(firmware.keys.keyring)}, capture_output=True)
    assert b"GOODSIG" not in done.stderr
    (out / "fw-1/.fussy/manifest.json").unlink()
    (out / "fw-1/.fussy").rmdir()
    os.utime(out / "fw-1", ns=(0, top.stat().st_mtime_ns))
    assert [found.entry for found in tree.scan(os.fsencode(out / "fw-1"))] == \
           [found.entry for found in tree.scan(os.fsencode(top))]


def test_each_recipient_opens_it(firmware: Firmware) -> None:
    keys = firmware.keys
    bundle = firmware.pack("fw", {"a": "1"}, encrypt_for=[keys.device, keys.stranger])
    for home in (keys.keyring, keys.home):
        packets = keys.gpg("--decrypt", home=home, text=bundle.read_bytes()).stdout
        assert gzip.decompress(packets)


# --- what is left out -------------------------------------------------------------------------------------------------

PATTERNS = [".coverage", "*.pyc", "build", "a/b", "fw/a", "b/c.py", "foo", "fo?", "[x]", r"\[x\]", "x.d/*", "fw/foo*",
            "*/foo", "/foo", "./foo", "a/*", "a*c", "[!f]*", "[^f]*", "fw/*/b", "**/c.py", "[[:alpha:]]", "[a-c]",
            r"foo\bar", r"c.p\y", "[a-", "[]x]", "é*", "with space", "?", "nothing", "*o"]


@pytest.fixture(scope="module")
def littered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("excludes") / "fw"
    for name in (".coverage", "a/.coverage", "a/b/c.py", "a/b/c.pyc", "a/foo", "build/o", "x.d/y", "[x]", "foo",
                 "foobar", "é", "with space", "x", "build.py"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def left_by_tar(top: Path, excludes: list[str]) -> set[str]:
    options = [f"--exclude={pattern}" for pattern in excludes]
    done = subprocess.run(["tar", "-c", "-C", top.parent, *options, top.name], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as members:
        return {member.name.removeprefix("fw/") for member in members}


def left_by_us(top: Path, excludes: list[str]) -> set[str]:
    return {os.fsdecode(found.entry.name) if found.entry.name != b"." else "fw"
            for found in tree.scan(os.fsencode(top), excludes=excludes)}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_leave_out_what_tar_leaves_out(littered: Path, pattern: str) -> None:
    assert left_by_us(littered, [pattern]) == left_by_tar(littered, [pattern])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("abcfowx./*?[]^!-\\py"), min_size=1, max_size=6), min_size=1, max_size=2))
def test_any_patterns_leave_out_what_tar_leaves_out(littered: Path, patterns: list[str]) -> None:
    patterns = [pattern for pattern in patterns if not pattern.endswith("/")]
    wanted = left_by_tar(littered, patterns)
    if wanted:
        assert left_by_us(littered, patterns) == wanted
    else:
        with pytest.raises(FussyError, match="matches it as a whole"):
            left_by_us(littered, patterns)


def test_a_slash_at_the_end_of_a_pattern_means_nothing(littered: Path) -> None:
    assert left_by_us(littered, ["build/", "a/b/"]) == left_by_tar(littered, ["build", "a/b"])


def test_version_control_is_left_out(firmware: Firmware) -> None:
    names = ["a", ".git/HEAD", "sub/.git/HEAD", "sub/.svn/x", "sub/.bzr/x", "other/.git", ".gitignore", "sub/x.git"]
    top = firmware.tree("fw", dict.fromkeys(names, ""))
    assert left_by_us(top, []) == {"fw", "a", ".gitignore", "sub", "sub/x.git", "other"}


def test_sockets_are_left_out(firmware: Firmware) -> None:
    top = firmware.tree("fw", {"a": "1"})
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(top)  # names of sockets are short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        done = fussy_pack(firmware.keys, "-r", top, "-k", firmware.keys.signer, "-o", firmware.place)
    assert done.returncode == 0
    assert "leaving out socket: a socket" in done.stderr
    firmware.install(Path(done.stdout.strip()))
    assert not os.path.lexists(firmware.target / "fw/socket")


def test_an_attribute_that_no_manifest_can_hold(firmware: Firmware) -> None:
    top = firmware.tree("fw", {"a": "1"})
    os.setxattr(top / "a", "user.\udcff", b"x")
    with pytest.raises(FussyError, match="fw/a: it has an extended attribute whose name is not UTF-8"):
        firmware.pack_tree(top)


# --- trees that change ------------------------------------------------------------------------------------------------


def change(path: Path, how: str) -> None:
    if how == "written to":
        with path.open("ab") as file:
            file.write(b"more")
    elif how == "cut":
        os.truncate(path, 10)
    elif how == "replaced":
        other = path.with_name("other")
        shutil.copy2(path, other)
        other.rename(path)
    else:
        before = path.stat()
        with path.open("r+b") as file:
            file.write(b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["written to", "cut", "replaced", "edited with its time set back"])
def test_a_file_that_changes_meanwhile_is_noticed(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    top = firmware.tree("fw", {"a": os.urandom(3_000_000), "z": "z" * 100})
    scan = tree.scan

    def scan_and_change(*arguments: object, **named: object) -> list[tree.Found]:
        found = scan(*arguments, **named)  # type: ignore[arg-type]
        change(top / "z", how)
        return found

    monkeypatch.setattr(tree, "scan", scan_and_change)
    with pytest.raises(FussyError, match="z: it is being changed; stop what writes to it and pack again"):
        firmware.pack_tree(top)
    assert os.listdir(firmware.place / "bundles") == []


def test_a_file_that_is_gone_meanwhile_is_told(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    top = firmware.tree("fw", {"a": "1", "z": "2"})
    scan = tree.scan

    def scan_and_remove(*arguments: object, **named: object) -> list[tree.Found]:
        found = scan(*arguments, **named)  # type: ignore[arg-type]
        (top / "z").unlink()
        return found

    monkeypatch.setattr(tree, "scan", scan_and_remove)
    with pytest.raises((FussyError, FileNotFoundError), match="z"):
        firmware.pack_tree(top)
    assert os.listdir(firmware.place / "bundles") == []


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_name_of_the_bundle_is_printed_last(firmware: Firmware) -> None:
    firmware.tree("fw", {"a": "1"})
    done = fussy_pack(firmware.keys, "-r", "fw/", "-e", firmware.keys.device, "-k", firmware.keys.signer,
                      cwd=firmware.place / "trees")
    assert done.returncode == 0, done.stderr
    bundle = Path(done.stdout.splitlines()[-1])
    try:
        assert bundle.is_absolute() and bundle.name == "fw.tar.gz.gpg"
        assert bundle.parent.name.startswith("fussy-") and bundle.parent.name.endswith("-pack")
        assert os.listdir(bundle.parent) == ["fw.tar.gz.gpg"]
        assert firmware.install(bundle) == firmware.target / "fw"
    finally:
        shutil.rmtree(bundle.parent)


@pytest.mark.parametrize("root", ["fw", "fw/", "./fw//", "../trees/fw/.", "link"])
def test_the_directory_may_be_spelled_in_any_way(firmware: Firmware, root: str) -> None:
    firmware.tree("fw", {"a": "1"})
    (firmware.place / "trees/link").symlink_to("fw")
    done = fussy_pack(firmware.keys, "-r", root, "-k", firmware.keys.signer, "-o", firmware.place,
                      cwd=firmware.place / "trees")
    assert done.stdout == f"{firmware.place}/fw.tar.gz.gpg\n", done.stderr


def test_a_name_that_looks_like_an_option_is_refused(firmware: Firmware) -> None:
    top = firmware.tree("-rf", {"a": "1"})
    done = fussy_pack(firmware.keys, "-r", top, "-o", firmware.place)
    assert done.returncode == 21
    assert "cannot be the name of a release" in done.stderr and len(done.stderr.splitlines()) == 1


KILLED = """
import os, pathlib, signal, sys
from fussy.pack import pack
at, seen = int(sys.argv[3]), 0
def progress(done, total):
    global seen
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)
pack(sys.argv[1], sign_with=sys.argv[4], output=pathlib.Path(sys.argv[2]), progress=progress)
"""


def test_a_pack_that_is_killed_leaves_no_bundle(firmware: Firmware) -> None:
    """Killed after each piece: the manifest, the small files, three pieces of a large one, the end."""
    top = firmware.tree("fw", {"a": "1", "large": os.urandom(3 << 20)})
    out = firmware.place / "out"
    out.mkdir()
    environment = {**os.environ, "GNUPGHOME": str(firmware.keys.home)}
    for at in range(1, 10):
        done = subprocess.run([sys.executable, "-c", KILLED, top, out, str(at), firmware.keys.signer], env=environment,
                              capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        assert [name for name in os.listdir(out) if not name.startswith(".")] == []
    else:
        pytest.fail("was never complete")
    assert at == 7
    assert firmware.install(out / "fw.tar.gz.gpg") == firmware.target / "fw"


def test_nothing_is_left_when_the_key_is_missing(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(firmware.place / "tmp"))
    (firmware.place / "tmp").mkdir()
    top = firmware.tree("fw", {"a": "1"})
    done = fussy_pack(firmware.keys, "-r", top, "-e", "nobody@example.org")
    assert done.returncode == 40
    assert done.stderr.startswith("fussy-pack: cannot encrypt for 'nobody@example.org'"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert os.listdir(firmware.place / "tmp") == []
