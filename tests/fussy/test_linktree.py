"""Trees of links into releases, as they are in a target of fussy: made, conflicting, upgraded, killed half-way."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fussy import disk, linktree, linkways
from fussy.errors import SystemSetup
from fussy.linktree import link_tree

IS_ROOT = os.geteuid() == 0


class Machine:
    """A target with releases, and a system to link into: ``opt/firmware/current/etc`` and ``etc``."""

    def __init__(self, root: Path) -> None:
        self.target = root / "opt" / "firmware"
        self.target.mkdir(parents=True)
        self.etc = root / "etc"
        self.etc.mkdir()
        self.source = self.target / "current" / "etc"

    def release(self, name: str, **files: str) -> Path:
        """Make a release with FILES in its etc (``__`` in their names is a slash) and make it current."""
        release = self.target / name
        write(release / "etc", files)
        write(release, {".fussy__manifest.json": "{}"})
        disk.swap_link(self.target / "current", name)
        return release

    def links(self) -> dict[str, str]:
        """Return all names in etc that aren't directories, and where they lead, relative to the source."""
        return {os.fspath(path.relative_to(self.etc)): os.fspath(path.readlink()).removeprefix(f"{self.source}/")
                if path.is_symlink() else "-"
                for path in sorted(self.etc.rglob("*")) if path.is_symlink() or not path.is_dir()}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    return {os.fspath(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in directory.rglob("*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.release("firmware-1", hosts="1", dnsmasq__dhcp="1", dnsmasq__dns="1")
    return made


def test_links_go_through_current_and_directories_are_real(machine: Machine) -> None:
    done = link_tree(machine.source, machine.etc)
    assert machine.links() == {name: name for name in ("hosts", "dnsmasq/dhcp", "dnsmasq/dns")}
    assert not (machine.etc / "dnsmasq").is_symlink()
    assert (done.made, done.kept) == ([f"{machine.etc}/dnsmasq", f"{machine.etc}/hosts"], 0)
    machine.release("firmware-2", hosts="2", dnsmasq__dhcp="2", dnsmasq__dns="2")
    assert (machine.etc / "hosts").read_text() == "2"


def test_relative_paths_become_absolute_links(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine.target)
    link_tree("current/etc/", "../../etc")
    assert machine.links()["hosts"] == "hosts"


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    link_tree(machine.source, machine.etc)
    before = snapshot(machine.etc)
    done = link_tree(machine.source, machine.etc)
    assert (done.made, done.kept, done.removed) == ([], 3, [])
    assert snapshot(machine.etc) == before


def test_what_is_there_is_replaced_or_shared(machine: Machine) -> None:
    write(machine.etc, {"hosts": "old", "dnsmasq__own": "own"})
    (machine.etc / "dnsmasq" / "dhcp").symlink_to("/nowhere")
    link_tree(machine.source, machine.etc)
    assert machine.links() == {"hosts": "hosts", "dnsmasq/dhcp": "dnsmasq/dhcp",
                               "dnsmasq/dns": "dnsmasq/dns", "dnsmasq/own": "-"}


def test_all_conflicts_are_told_and_nothing_is_changed(machine: Machine) -> None:
    machine.release("firmware-2", hosts="2", dnsmasq__dhcp="2", fresh="2", other="2")
    (machine.etc / "hosts").mkdir()
    (machine.etc / "other").symlink_to("hosts")
    write(machine.etc, {"dnsmasq": "a file"})
    before = snapshot(machine.etc)
    with pytest.raises(SystemSetup) as caught:
        link_tree(machine.source, machine.etc)
    message = str(caught.value)
    assert message.startswith(f"cannot link '{machine.source}' into '{machine.etc}': ")
    assert f"'{machine.etc}/dnsmasq' is not a directory, but '{machine.source}/dnsmasq' is; " in message
    assert f"'{machine.etc}/hosts' is a directory, but '{machine.source}/hosts' is not; " in message
    assert f"'{machine.etc}/other' is a directory" in message
    assert "nothing was changed" in message
    assert snapshot(machine.etc) == before


def test_a_merged_usr_is_followed(machine: Machine) -> None:
    """``/lib -> usr/lib``: files for lib/ go to where it leads, and the link itself stays."""
    release = machine.release("firmware-2")
    write(release / "etc", {"usr__lib__one": "1"})
    (release / "etc" / "lib").symlink_to("usr/lib")
    write(machine.etc, {"usr__lib__own": "own"})
    (machine.etc / "lib").symlink_to("usr/lib")
    link_tree(machine.source, machine.etc)
    assert machine.links() == {"lib": "usr/lib", "usr/lib/one": "usr/lib/one", "usr/lib/own": "-"}
    (release / "etc" / "lib").unlink()
    write(release / "etc", {"lib__two": "2"})
    link_tree(machine.source, machine.etc)
    assert machine.links()["usr/lib/two"] == "lib/two"
    write(release / "etc", {"lib__one": "2"})
    with pytest.raises(SystemSetup, match="can't be both"):
        link_tree(machine.source, machine.etc)


def test_a_directory_that_is_linked_as_a_whole_is_left_alone(machine: Machine) -> None:
    (machine.etc / "dnsmasq").symlink_to(machine.source / "dnsmasq")
    release = snapshot(machine.target)
    assert link_tree(machine.source, machine.etc, prune=True).kept == 1
    assert machine.links() == {"hosts": "hosts", "dnsmasq": "dnsmasq"}
    assert snapshot(machine.target) == release


def test_no_link_is_made_inside_the_release(machine: Machine) -> None:
    release = machine.release("firmware-2", dnsmasq__dhcp="2", other__dhcp="2")
    write(release, {"share__dhcp": "2"})
    before = snapshot(machine.target)
    for inside in (machine.source / "other", machine.target / "current" / "share"):
        (machine.etc / "dnsmasq").symlink_to(inside)
        with pytest.raises(SystemSetup, match="'.*dnsmasq' leads into the release, to"):
            link_tree(machine.source, machine.etc)
        (machine.etc / "dnsmasq").unlink()
    for target in (machine.source, machine.source / "dnsmasq", machine.target / "current" / "share"):
        with pytest.raises(SystemSetup, match="that is part of the release; name another target"):
            link_tree(machine.source, target)
    assert snapshot(machine.target) == before


def test_a_whole_release_leaves_its_description_out(machine: Machine, tmp_path: Path) -> None:
    write(machine.target / "firmware-1", {".post-install": "#!/bin/sh\n"})
    link_tree(machine.target / "current", tmp_path)
    assert not (tmp_path / ".fussy").exists()
    assert (tmp_path / ".post-install").is_symlink()
    assert (tmp_path / "etc" / "hosts").read_text() == "1"


def test_missing_directories_are_told(machine: Machine, tmp_path: Path) -> None:
    for source, target in ((tmp_path / "no", machine.etc), (machine.source, tmp_path / "no"),
                           (machine.source / "hosts", machine.etc)):
        with pytest.raises(SystemSetup, match="is not a directory; name one that is"):
            link_tree(source, target)


def test_odd_names(machine: Machine) -> None:
    names = [b"with space", b"new\nline", b"not-utf-8-\xff", b"-rf", b"n" * 255]
    for name in names:
        (machine.source / os.fsdecode(name)).write_bytes(b"x")
    link_tree(machine.source, machine.etc)
    for name in names:
        assert os.readlink(os.fsencode(machine.etc) + b"/" + name) == os.fsencode(machine.source) + b"/" + name
    (machine.etc / "hosts").unlink()
    (machine.source / os.fsdecode(b"dir\n\xff")).write_bytes(b"x")
    (machine.etc / os.fsdecode(b"dir\n\xff")).mkdir()
    with pytest.raises(SystemSetup) as caught:
        link_tree(machine.source, machine.etc)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_symbolic_links_and_special_files_are_linked_as_they_are(machine: Machine) -> None:
    (machine.source / "link").symlink_to("hosts")
    (machine.source / "broken").symlink_to("nowhere")
    (machine.source / "directory").symlink_to("dnsmasq")
    os.mkfifo(machine.source / "pipe")
    link_tree(machine.source, machine.etc)
    assert {name: machine.links()[name] for name in ("link", "broken", "directory", "pipe")} == {
        name: name for name in ("link", "broken", "directory", "pipe")}
    assert link_tree(machine.source, machine.etc).made == []


def test_hard_links(machine: Machine) -> None:
    (machine.source / "link").symlink_to("hosts")
    write(machine.etc, {"hosts": "old"})
    link_tree(machine.source, machine.etc, symbolic=False)
    for name in ("hosts", "dnsmasq/dhcp", "dnsmasq/dns", "link"):
        assert os.path.samestat((machine.etc / name).lstat(), (machine.source / name).lstat())
    assert link_tree(machine.source, machine.etc, symbolic=False).made == []
    link_tree(machine.source, machine.etc)
    assert machine.links()["hosts"] == "hosts"


def test_one_way_replaces_another(machine: Machine) -> None:
    (machine.source / "directory").symlink_to("dnsmasq")
    ways: list[dict[str, bool]] = [{}, {"symbolic": False}, {"copy": True}, {}]
    for way in ways:
        assert f"{machine.etc}/hosts" in link_tree(machine.source, machine.etc, **way).made
        assert (machine.etc / "directory" / "dns").read_text() == "1"
        assert link_tree(machine.source, machine.etc, **way).made == []


def test_hard_links_to_another_file_system_are_refused(machine: Machine) -> None:
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == machine.etc.stat().st_dev:
        pytest.skip("/dev/shm is not another file system")
    with pytest.raises(SystemSetup, match=r"'.*/dnsmasq/dhcp' is on another file system.*'.*/hosts' is on another .*"
                                          r"\(--copy can\)"):
        link_tree(machine.source, place, symbolic=False)


def test_copies(machine: Machine) -> None:
    (machine.source / "link").symlink_to("hosts")
    (machine.source / "hosts").chmod(0o640)
    (machine.source / "dnsmasq").chmod(0o750)
    if IS_ROOT:
        os.chown(machine.source / "hosts", 123, 456)
        os.chown(machine.source / "dnsmasq", 123, 456)
    link_tree(machine.source, machine.etc, copy=True)
    assert machine.links() == {"dnsmasq/dhcp": "-", "dnsmasq/dns": "-", "hosts": "-", "link": "hosts"}
    for name in ("hosts", "dnsmasq"):
        copied, original = (machine.etc / name).stat(), (machine.source / name).stat()
        assert (copied.st_mode, copied.st_uid, copied.st_gid) == (original.st_mode, original.st_uid, original.st_gid)
        assert copied.st_ino != original.st_ino
    assert link_tree(machine.source, machine.etc, copy=True).made == []
    (machine.etc / "hosts").write_text("X")
    (machine.etc / "dnsmasq" / "dns").chmod(0o600)
    (machine.etc / "dnsmasq" / "dhcp").unlink()
    (machine.etc / "dnsmasq" / "dhcp").hardlink_to(machine.source / "dnsmasq" / "dhcp")
    (machine.etc / "link").unlink()
    (machine.etc / "link").symlink_to("elsewhere")
    assert len(link_tree(machine.source, machine.etc, copy=True).made) == 4
    assert link_tree(machine.source, machine.etc, copy=True).made == []


def test_a_copy_is_private_until_it_is_complete(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.source / "hosts").chmod(0o600)
    modes: list[int] = []
    real = linkways.shutil.copyfile

    def watching(source: str, place: str) -> object:
        modes.append(os.stat(place).st_mode & 0o777)
        return real(source, place)

    monkeypatch.setattr(linkways.shutil, "copyfile", watching)
    link_tree(machine.source, machine.etc, copy=True)
    assert set(modes) == {0o600}


def test_what_cannot_be_copied_is_refused(machine: Machine) -> None:
    os.mkfifo(machine.source / "dnsmasq" / "pipe")
    with pytest.raises(SystemSetup, match="'.*/dnsmasq/pipe' is neither a file nor a link and can't be copied"):
        link_tree(machine.source, machine.etc, copy=True)
    assert list(machine.etc.iterdir()) == []


def test_prune_removes_what_the_release_has_dropped(machine: Machine) -> None:
    link_tree(machine.source, machine.etc)
    (machine.etc / "own").symlink_to(machine.source / "gone")  # not where we would have made it
    (machine.etc / "broken").symlink_to("/nowhere")
    machine.release("firmware-2", fresh="2", hosts="2")
    done = link_tree(machine.source, machine.etc)
    assert done.removed == []
    assert (machine.etc / "dnsmasq" / "dhcp").is_symlink()
    done = link_tree(machine.source, machine.etc, prune=True)
    assert done.removed == [f"{machine.etc}/dnsmasq/dhcp", f"{machine.etc}/dnsmasq/dns"]
    assert machine.links() == {"hosts": "hosts", "fresh": "fresh", "own": "gone", "broken": "/nowhere"}
    assert (machine.etc / "dnsmasq").is_dir()  # it may belong to somebody else


def test_prune_removes_nothing_inside_the_release(machine: Machine) -> None:
    release = machine.release("firmware-2", hosts="2")
    write(release, {"share__other": "2"})
    (release / "share" / "dhcp").symlink_to(machine.source / "dnsmasq" / "dhcp")
    (machine.etc / "dnsmasq").symlink_to(machine.target / "current" / "share")
    assert link_tree(machine.source, machine.etc, prune=True).removed == []
    assert (release / "share" / "dhcp").is_symlink()


def test_prune_without_a_release_beside(tmp_path: Path) -> None:
    """A plain directory: links are looked for in the directories it still has."""
    write(tmp_path / "source", {"one": "1", "sub__two": "2", "sub__three": "3"})
    (tmp_path / "target").mkdir()
    link_tree(tmp_path / "source", tmp_path / "target")
    (tmp_path / "source" / "one").unlink()
    (tmp_path / "source" / "sub" / "two").unlink()
    assert link_tree(tmp_path / "source", tmp_path / "target", prune=True).removed == [
        f"{tmp_path}/target/one", f"{tmp_path}/target/sub/two"]


@pytest.mark.parametrize(("way", "unused"), [
    ({}, ["link", "copyfile"]), ({"symbolic": False}, ["symlink", "copyfile"]), ({"copy": True}, ["symlink", "link"]),
], ids=["symbolic", "hard", "copy"])
def test_an_error_before_the_renames_changes_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, way: dict[str, bool], unused: list[str]
) -> None:
    write(machine.etc, {"hosts": "old"})
    before = snapshot(machine.etc)
    failed = 0

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((os, "symlink"), (os, "link"), (shutil, "copyfile"), (os, "mkdir"), (os, "chmod"),
                         (disk, "sync_filesystem")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            if name in unused:
                continue
            with pytest.raises(OSError, match="No space left"):
                link_tree(machine.source, machine.etc, **way)
        failed += 1
        assert snapshot(machine.etc) == before
        assert (machine.etc / "hosts").read_text() == "old"
    assert failed == 4


def failing_at(nth: int, real: Callable[..., object]) -> Callable[..., object]:
    calls = iter(range(1, 1000))

    def call(*args: object, **kwargs: object) -> object:
        if next(calls) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    return call


def test_an_error_in_the_middle_of_the_renames_leaves_whole_files(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(machine.etc, {"hosts": "old", "dnsmasq__dhcp": "old"})
    for nth in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr("fussy.linktree.os.rename", failing_at(nth, os.rename))
            with pytest.raises(OSError):
                link_tree(machine.source, machine.etc)
        assert not [path for path in machine.etc.rglob("*") if path.name.startswith(".fussy-link")]
        link_tree(machine.source, machine.etc)
        assert all((machine.etc / name).read_text() == "1" for name in ("hosts", "dnsmasq/dhcp", "dnsmasq/dns"))
        for name in ("hosts", "dnsmasq/dhcp", "dnsmasq/dns"):
            (machine.etc / name).unlink()
        write(machine.etc, {"hosts": "old", "dnsmasq__dhcp": "old"})


def test_killed_at_each_call_that_changes_the_disk(machine: Machine) -> None:
    """At any moment a name is the old file or the new link, and the next run cleans up and finishes."""
    script = """
import os, signal, sys
from fussy import disk, linktree
left = [int(sys.argv[3])]
def mortal(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("symlink", "mkdir", "chmod", "rename", "unlink", "fsync"):
    setattr(os, name, mortal(getattr(os, name)))
disk.sync_filesystem = mortal(disk.sync_filesystem)
linktree.link_tree(sys.argv[1], sys.argv[2], prune=True)
"""
    machine.release("firmware-2", hosts="2", dnsmasq__dhcp="2", fresh__one="2")
    for nth in range(1, 100):
        link = machine.etc / "dnsmasq" / "dns"
        write(machine.etc, {"hosts": "old", "dnsmasq__dhcp": "old"})
        link.symlink_to(machine.source / "dnsmasq" / "dns")
        done = subprocess.run([sys.executable, "-c", script, machine.source, machine.etc, str(nth)], timeout=30,
                              check=False)
        assert (machine.etc / "hosts").read_text() in ("old", "2")
        assert (machine.etc / "dnsmasq" / "dhcp").read_text() in ("old", "2")
        fresh = machine.etc / "fresh"
        assert not fresh.exists() or (fresh / "one").read_text() == "2"
        link_tree(machine.source, machine.etc, prune=True)
        assert machine.links() == {"hosts": "hosts", "dnsmasq/dhcp": "dnsmasq/dhcp", "fresh/one": "fresh/one"}
        for name in ("hosts", "dnsmasq/dhcp", "fresh/one"):
            (machine.etc / name).unlink()
        fresh.rmdir()
        if done.returncode == 0:
            assert nth > 8
            break
    else:
        pytest.fail("it never came to its end")


def test_a_living_run_is_not_cleaned_up(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            living = machine.etc / f".fussy-link~{other.pid}.0"
            living.symlink_to("/nowhere")
            dead = machine.etc / f".fussy-link~{2**22 + 1}.0"
            write(dead, {"sub__file": "x"})
            link_tree(machine.source, machine.etc)
            assert living.is_symlink()
            assert not dead.exists()
        finally:
            other.kill()


def test_runs_at_once(machine: Machine) -> None:
    """Two runs into one directory: none fails for the other's temporary names, and a reader always finds a file."""
    machine.release("firmware-2", **{f"file{number}": "2" for number in range(50)})
    write(machine.etc, {f"file{number}": "1" for number in range(50)})
    script = "import sys; from fussy.linktree import link_tree; link_tree(*sys.argv[1:])"
    runs = [subprocess.Popen([sys.executable, "-c", script, machine.source, machine.etc]) for _ in range(3)]
    deadline = time.monotonic() + 30
    while any(run.poll() is None for run in runs) and time.monotonic() < deadline:
        assert (machine.etc / "file49").read_text() in ("1", "2")
    assert [run.wait(10) for run in runs] == [0, 0, 0]
    assert machine.links() == {name: name for name in machine.links()}


@pytest.mark.skipif(not IS_ROOT, reason="only root can become nobody")
def test_a_directory_that_cannot_be_written_is_told_before() -> None:
    # not pytest's directory, which is root's alone
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        machine = Machine(Path(place))
        machine.release("firmware-1", hosts="1", dnsmasq__dhcp="1")
        write(machine.etc, {"dnsmasq__own": "own"})
        assert refused_to_nobody(machine)


def refused_to_nobody(machine: Machine) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            link_tree(machine.source, machine.etc)
        except SystemSetup as error:
            told = f"'{machine.etc}' can't be written; '{machine.etc}/dnsmasq' can't be written"
            status = 0 if told in str(error) else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(linktree.get_options(), [os.fspath(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_command_line(machine: Machine) -> None:
    assert isinstance(linktree.get_options(), click.Command)
    assert run(machine.source, machine.etc) == (0, "2 made, 0 right already, 0 removed\n", "")
    machine.release("firmware-2", hosts="2")
    assert run("-d", machine.source, "-t", machine.etc, "-v", "--prune") == (
        0, "0 made, 1 right already, 2 removed\n",
        f"removed '{machine.etc}/dnsmasq/dhcp'\nremoved '{machine.etc}/dnsmasq/dns'\n")
    assert run("-d", machine.source, machine.etc)[0] == 0
    assert run("--hard", machine.source, machine.etc)[0] == 0
    assert (machine.etc / "hosts").stat().st_nlink == 2
    assert not (machine.etc / "hosts").is_symlink()
    assert run("-c", machine.source, machine.etc)[0] == 0
    assert (machine.etc / "hosts").stat().st_nlink == 1


def test_command_line_mistakes(machine: Machine) -> None:
    assert run()[0] == 2
    assert run("-t", machine.etc)[0] == 2
    assert run("-d", machine.source, machine.etc, machine.etc)[0] == 2
    assert run("-t", machine.etc, machine.source, machine.etc)[0] == 2
    assert run("-H", "-c", machine.source, machine.etc)[0] == 2
    (machine.etc / "hosts").mkdir()
    code, output, errors = run(machine.source, machine.etc)
    assert (code, output) == (40, "")
    assert errors.startswith("fussy-link-tree: cannot link ")
    assert errors.count("\n") == 1


def test_the_installed_command(machine: Machine) -> None:
    command = Path(sys.executable).with_name("fussy-link-tree")
    subprocess.run([command, machine.source, machine.etc], check=True, timeout=30, stdout=subprocess.DEVNULL)
    assert machine.links()["hosts"] == "hosts"
