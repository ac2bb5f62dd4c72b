"""Snapshots of what lasts: complete or not there, brought back whole or not at all, wherever a kill strikes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from fussy import disk
from paradrop.backend.fc import journal
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.image import cli, kept, snapshots
from paradrop.image.snapshots import SnapshotFailed
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.utils import pdosq


class Killed(BaseException):
    """The process is no more."""


def nobody() -> None:
    """There are no containers to stop."""


@pytest.fixture
def router(home: Path) -> Iterator[Path]:
    """A router with something of everything, whose release is target/v1."""
    for path, text in {"lib/data/web/db": "one", "lib/system/web/dnsmasq.leases": "lease", "lib/logs/log": "log",
                       "lib/keys/identity.json": "key", "config/network": "uci", "etc/extra": "extra"}.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    (home / "lib/keys").chmod(0o700)
    (home / "lib/data/web/link").symlink_to("db")
    release(home, "v1")
    store("web")
    yield home
    ChuteStorage.chuteList = {}


def release(home: Path, name: str) -> Path:
    path = home / "target" / name / ".fussy"
    path.mkdir(parents=True)
    (path / "persistent").write_text(f"{home}/lib\n{home}/config\n{home}/etc/extra\n{home}/etc/later\n")
    return path.parent


def store(*names: str) -> None:
    ChuteStorage.chuteList = {}
    storage = ChuteStorage()
    for name in names:
        storage.saveChute(Chute({"name": name, "state": "stopped"}))
    ChuteStorage.chuteList = {}


def contents(home: Path) -> dict[str, tuple[str, int]]:
    """What lasts, less what is never part of it."""
    found = {}
    for top in ("lib", "config", "etc"):
        for path in sorted((home / top).rglob("*")):
            name = str(path.relative_to(home))
            if not name.startswith(("lib/snapshots", "lib/logs")) and path.name != "chutes.journal":
                text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
                found[name] = (text, path.lstat().st_mode)
    return found


def change(home: Path) -> None:
    """Be the next release, which changes everything."""
    (home / "lib/data/web/db").write_text("two")
    (home / "lib/data/new").mkdir()
    (home / "lib/data/new/file").write_text("new")
    shutil.rmtree(home / "lib/system")
    (home / "lib/more").write_text("more")
    (home / "lib/logs/log").write_text("log and more")
    (home / "config/network").unlink()
    (home / "config/wireless").write_text("uci")
    (home / "etc/extra").write_text("changed")
    (home / "etc/later").write_text("later")
    store("new")


def names(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "lib/snapshots").iterdir() if path.name != ".owner")


def test_what_a_release_had_comes_back_with_it(router: Path) -> None:
    before = contents(router)
    snapshots.snapshot(router / "target/v1", nobody)
    change(router)
    (router / "lib/keys/identity.json").write_text("of a server since")
    assert snapshots.restore("v1", nobody)
    assert (router / "lib/keys/identity.json").read_text() == "of a server since", "it goes with no release"
    (router / "lib/keys/identity.json").write_text("key")
    assert contents(router) == before
    assert (router / "lib/logs/log").read_text() == "log and more", "logs go on"
    assert journal.unfinished() == {"new": [], "web": []}, "the runtime looks at the containers of both"
    (router / "lib/data/web/db").write_text("newer")
    assert not snapshots.restore("v1", nobody), "what is there is its own, and newer"
    assert (router / "lib/data/web/db").read_text() == "newer"


def write(home: Path, text: str) -> None:
    (home / "lib/data/web/db").write_text(text)


def runs(home: Path, release: str) -> None:
    """A release's runtime begins, and changes something."""
    snapshots.begin(home / "target" / release)
    write(home, f"{release} again")


def left_for_v2(home: Path) -> None:
    release(home, "v2")
    runs(home, "v1")
    write(home, "of v1")
    snapshots.snapshot(home / "target/v1", nobody)


def goes_back_to(home: Path, release: str) -> str:
    """Return what the data are after a fallback to a release."""
    snapshots.restore(release, nobody)
    return (home / "lib/data/web/db").read_text()


def test_a_fallback_that_was_interrupted_is_made_again(router: Path) -> None:
    left_for_v2(router)
    runs(router, "v2")
    assert goes_back_to(router, "v1") == "of v1"
    for _ in range(2):  # the power was cut before v1 was current, and the machine's boot started v2 again
        runs(router, "v2")
    assert goes_back_to(router, "v1") == "of v1"


def test_a_rollback_that_was_interrupted_is_taken_back(router: Path) -> None:
    left_for_v2(router)
    runs(router, "v2")
    write(router, "of v2")
    snapshots.snapshot(router / "target/v2", nobody)
    assert goes_back_to(router, "v1") == "of v1"
    for _ in range(2):  # as above
        runs(router, "v2")
    assert goes_back_to(router, "v2") == "of v2"
    runs(router, "v2")
    snapshots.snapshot(router / "target/v2", nobody)
    assert goes_back_to(router, "v1") == "of v1", "the way to v1 is still there"


def test_what_the_release_in_use_has_made_stays(router: Path) -> None:
    left_for_v2(router)
    runs(router, "v1")  # the power was cut before v2 was current
    assert goes_back_to(router, "v1") == "v1 again"
    snapshots.snapshot(router / "target/v1", nobody)
    runs(router, "v2")
    snapshots.snapshot(router / "target/v2", nobody)
    runs(router, "v2")
    assert goes_back_to(router, "v2") == "v2 again"
    assert goes_back_to(router, "v1") == "v1 again"


def test_nothing_kept_changes_nothing(router: Path) -> None:
    before = contents(router)
    assert not snapshots.restore("v0", nobody)
    assert contents(router) == before


def test_the_newest_of_a_release_counts_and_old_releases_go(router: Path) -> None:
    release(router, "v2~rc1")
    snapshots.snapshot(router / "target/v1", nobody)
    snapshots.snapshot(router / "target/v2~rc1", nobody)
    change(router)
    changed = contents(router)
    snapshots.snapshot(router / "target/v1", nobody)
    assert names(router) == ["v1~2", "v2~rc1~1"]
    (router / "lib/data/web/db").write_text("three")
    snapshots.restore("v1", nobody)
    assert contents(router) == changed
    shutil.rmtree(router / "target/v2~rc1")
    snapshots.snapshot(router / "target/v1", nobody)
    assert names(router) == ["v1~3"]
    assert snapshots.prune(router) == ["v1"] and names(router) == []


def test_a_full_disk_keeps_nothing_and_changes_nothing(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots.snapshot(router / "target/v1", nobody)
    snapshots.snapshot(router / "target/v2~rc1", nobody)
    change(router)
    before = contents(router)
    fake = router / "bin/cp"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'cp: No space left on device' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(SnapshotFailed, match="No space left on device"):
        snapshots.snapshot(router / "target/v1", nobody)
    with pytest.raises(SnapshotFailed, match="No space left on device"):
        snapshots.restore("v2~rc1", nobody)
    assert names(router) == ["v2~rc1~1"] and contents(router) == before
    assert not snapshots.restore("v1", nobody), "what it had when it was left before is of no use any more"


EDGES: tuple[tuple[object, str], ...] = (
    (snapshots, "_copy"), (kept, "remove"), (snapshots, "_carry_out"), (disk, "sync_directory"),
    (disk, "sync_filesystem"), (disk, "publish"), (pdosq, "replaceFile"), (Path, "rename"), (Path, "unlink"))


@dataclass
class Death:
    """Kills whoever wants to have an effect after LIMIT others; who tries to tidy up then dies too."""

    limit: int
    count: int = 0

    def before(self, place: object, name: str) -> Callable[..., object]:
        real = getattr(place, name)

        def edge(*arguments: object, **options: object) -> object:
            self.count += 1
            if self.count > self.limit:
                raise Killed
            return real(*arguments, **options)

        return edge


def killed(monkeypatch: pytest.MonkeyPatch, limit: int, act: Callable[[], object]) -> bool:
    """Do something that is killed after LIMIT effects; return False if it came to its end."""
    death = Death(limit)
    with monkeypatch.context() as patch:
        for place, name in EDGES:
            patch.setattr(place, name, death.before(place, name))
        try:
            act()
        except Killed:
            return True
    return False


@dataclass
class Saved:
    """The state of the router, to go back to."""

    home: Path

    def __post_init__(self) -> None:
        for top in ("lib", "config", "etc"):
            shutil.copytree(self.home / top, self.home / "saved" / top, symlinks=True)

    def again(self) -> None:
        for top in ("lib", "config", "etc"):
            shutil.rmtree(self.home / top)
            shutil.copytree(self.home / "saved" / top, self.home / top, symlinks=True)


def test_a_snapshot_killed_anywhere_leaves_the_one_before_or_none_or_the_new_one(
    router: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.snapshot(router / "target/v1", nobody)
    old = contents(router)
    change(router)
    new = contents(router)
    saved = Saved(router)
    seen = []
    for limit in range(1000):
        if not killed(monkeypatch, limit, lambda: snapshots.snapshot(router / "target/v1", nobody)):
            break
        snapshots.finish()
        assert contents(router) == new, "what lasts is not touched"
        there = snapshots.restore("v1", nobody)
        seen.append(0 if contents(router) == old else 2 if there else 1)
        assert seen[-1] == 0 or contents(router) == new
        saved.again()
    assert len(seen) > 10 and seen == sorted(seen) and set(seen) == {0, 1, 2}
    assert names(router) == ["v1~2"]


def test_a_restore_killed_anywhere_has_changed_all_or_nothing(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = contents(router)
    snapshots.snapshot(router / "target/v1", nobody)
    change(router)
    new = contents(router)
    saved = Saved(router)
    seen = []
    for limit in range(1000):
        if not killed(monkeypatch, limit, lambda: snapshots.restore("v1", nobody)):
            break
        snapshots.finish()
        found = {path: facts for path, facts in contents(router).items() if ".restore~" not in path}
        assert found in (old, new)
        seen.append(found == old)
        snapshots.restore("v1", nobody)
        assert contents(router) == old, "it can be done again"
        saved.again()
    assert len(seen) > 20 and seen == sorted(seen), "from one moment on it is done"
    assert True in seen and False in seen


def test_finishing_may_be_killed_again_and_again(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = contents(router)
    snapshots.snapshot(router / "target/v1", nobody)
    change(router)
    decided = 0
    while not (router / "lib/snapshots/.restoring").exists():
        decided += 1
        assert killed(monkeypatch, decided, lambda: snapshots.restore("v1", nobody))
    deaths = 0
    while killed(monkeypatch, deaths, snapshots.finish):
        deaths += 1
    assert deaths > 10 and contents(router) == old


def test_the_commands_of_the_hooks(router: Path) -> None:
    settings.addSetting("DOCKER_HOST", "unix:///nowhere/docker.sock")
    before = contents(router)
    run = CliRunner().invoke(cli.main, ["snapshot", str(router / "target/v1")])
    assert run.exit_code == 0 and run.stdout.strip() == str(router / "lib/snapshots/v1~1")
    change(router)
    run = CliRunner().invoke(cli.main, ["restore", str(router / "target/v1")])
    assert run.exit_code == 0 and contents(router) == before
    run = CliRunner().invoke(cli.main, ["restore", "v0"])
    assert run.stdout == "nothing to bring back for v0; all stays as it is\n"
    CliRunner().invoke(cli.main, ["snapshot", str(router / "target/v1")])
    (router / "lib/snapshots/v1~2/record.json").write_text("x")
    run = CliRunner().invoke(cli.main, ["restore", "v1"])
    assert run.exit_code == 1 and run.stderr.startswith("paradrop-image restore: cannot bring back")
    assert CliRunner().invoke(cli.main, ["prune", str(router / "etc")]).stdout == "v1\n"
    done = subprocess.run([sys.executable, "-m", "paradrop.image", "--help"], capture_output=True, text=True,
                          timeout=60, check=True)
    assert "snapshot" in done.stdout and "restore" in done.stdout


def test_a_snapshot_shares_what_the_file_system_can_share(
    router: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("btrfs")
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("a file system that shares needs root and mkfs.btrfs (apt package btrfs-progs)")
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, timeout=60)
    (place / "mnt").mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place / "mnt")], capture_output=True, text=True,
                             check=False, timeout=60)
    if mounted.returncode:
        pytest.skip(f"btrfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        settings.relocate(place / "mnt")
        (place / "mnt/lib/data/web").mkdir(parents=True)
        (place / "mnt/lib/data/web/db").write_bytes(os.urandom(64 << 20))
        os.sync()
        free = shutil.disk_usage(place / "mnt").free
        snapshots.snapshot(router / "target/v1", nobody)
        os.sync()
        assert free - shutil.disk_usage(place / "mnt").free < 4 << 20
    finally:
        subprocess.run(["umount", str(place / "mnt")], check=False, timeout=60)
