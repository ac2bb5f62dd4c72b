"""pdos, pdosq and storage."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from paradrop.lib import settings
from paradrop.lib.utils import pdos, pdosq
from paradrop.lib.utils.storage import PDStorage


def test_makedirs(tmp_path: Path) -> None:
    assert pdosq.makedirs(tmp_path / "a" / "b") is True
    assert pdosq.makedirs(tmp_path / "a" / "b") is False
    (tmp_path / "f").touch()
    with pytest.raises(OSError, match="f"):
        pdosq.makedirs(tmp_path / "f")
    with pytest.raises(OSError, match="f"):
        pdosq.makedirs(tmp_path / "f" / "g")


class TestReplaceFile:
    def test_keeps_mode_and_link(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("old")
        real.chmod(0o600)
        link.symlink_to(real)
        pdosq.replaceFile(link, b"new")
        assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o600

    def test_a_link_into_a_release_gives_way_to_a_file_of_its_own(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As /etc has them by fussy-link-tree; written through, the release would not be what was signed any more."""
        monkeypatch.setattr(settings, "FIRMWARE_TARGET", str(tmp_path / "opt"))
        released, link = tmp_path / "opt/firmware-7/etc/network", tmp_path / "etc/network"
        for directory in (released.parent, link.parent):
            directory.mkdir(parents=True)
        released.write_text("released")
        released.chmod(0o640)
        (tmp_path / "opt/current").symlink_to("firmware-7")
        link.symlink_to(tmp_path / "opt/current/etc/network")
        pdosq.replaceFile(link, b"own")
        assert (released.read_text(), link.read_text(), link.is_symlink()) == ("released", "own", False)
        assert link.stat().st_mode & 0o777 == 0o640

    def test_failure_leaves_the_old_and_no_litter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place = tmp_path / "f"
        place.write_text("old")

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            pdosq.replaceFile(place, b"new")
        assert place.read_text() == "old"
        assert os.listdir(tmp_path) == ["f"]

    def test_content_is_on_disk_before_its_name_and_the_directory_last(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        fsync, rename = os.fsync, Path.rename

        def watch_fsync(descriptor: int) -> None:
            order.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "content")
            fsync(descriptor)

        def watch_rename(self: Path, target: Path) -> Path:
            order.append("rename")
            return rename(self, target)

        monkeypatch.setattr(os, "fsync", watch_fsync)
        monkeypatch.setattr(Path, "rename", watch_rename)
        pdosq.replaceFile(tmp_path / "f", b"x")
        assert order == ["content", "rename", "directory"]


def test_files(tmp_path: Path) -> None:
    name = tmp_path / "f"
    assert pdos.readFile(name) is None
    pdos.writeFile(name, "one")
    pdos.writeFile(name, ["two", "three"])
    assert pdos.readFile(name) == ["one", "two", "three"]
    assert pdos.readFile(name, array=False, delimiter=" ") == "one two three"
    pdos.write(name, "x")
    pdos.write(name, "y", "a")
    assert pdos.readFile(name, array=False) == "xy"
    pdos.makeExecutable(name, tmp_path / "absent")
    assert name.stat().st_mode & 0o777 == 0o744
    pdos.copy(name, tmp_path / "g")
    pdos.symlink("g", tmp_path / "l")
    kinds = {entry: pdos.getFileType(tmp_path / entry) for entry in ("f", "l", "absent", ".")}
    assert kinds == {"f": "file", "l": "link", "absent": None, ".": "directory"}
    assert pdos.getFileType("/dev/null") == "other"
    pdos.mkdir(tmp_path / "d")
    pdos.move(tmp_path / "g", tmp_path / "d")
    assert pdos.exists(tmp_path / "l") and not pdos.isfile(tmp_path / "l")
    pdos.copytree(tmp_path / "d", tmp_path / "e")
    pdos.copytree(tmp_path / "d", tmp_path / "e")
    assert pdos.isfile(tmp_path / "e" / "g") and pdos.isdir(tmp_path / "e")
    for entry in ("d", "l", "absent"):
        pdos.remove(tmp_path / entry)
    pdos.unlink(name)
    assert os.listdir(tmp_path) == ["e"]
    with pdos.open(tmp_path / "e" / "g", "rb") as file:
        assert file.read() == b"xy"
    assert (pdos.basename("/a/b"), pdos.fixpath("/a/b")) == ("b", "/a/b")
    pdos.syncFS()


def test_oscall() -> None:
    assert pdos.oscall("true") is None
    assert pdos.oscall("echo 'a  b' c", get=True) == ("a  b c\n", 0, "")
    assert pdos.oscall(["echo", "$HOME; false"], get=True) == ("$HOME; false\n", 0, "")
    failed = pdos.oscall("ls /does/not/exist")
    assert failed is not None and failed[1] == 2 and "/does/not/exist" in failed[2]
    absent = pdos.oscall("no-such-program")
    assert absent is not None and absent[1] == 127


def test_oscall_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdos, "OSCALL_TIMEOUT", 0.05)
    late = pdos.oscall("sleep 5")
    assert late is not None and late[1] == 124


def test_mounts(tmp_path: Path) -> None:
    assert pdos.isMount("/proc") and pdos.ismount("/proc")
    assert not pdos.isMount(tmp_path) and not pdos.ismount(tmp_path)
    assert pdos.getMountCmd() == "mount"
    with pytest.raises(OSError, match="cannot run mount"):
        pdos.doMount(tmp_path / "absent", tmp_path)
    with pytest.raises(OSError, match="cannot run umount"):
        pdos.doUnmount(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "a place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    if pdos.oscall(["mkfs.ext4", "-q", str(image)]):
        pytest.skip("mkfs.ext4 is missing")
    try:
        pdos.doMount(image, place)
    except OSError as error:
        pytest.skip(f"no loop mounts here: {error}")
    try:
        assert pdos.isMount(place)
    finally:
        pdos.doUnmount(place)
    assert not pdos.isMount(place)


class Numbers(PDStorage):
    def __init__(self, filename: Path | None, reactor: Any = None, saveTimer: float = 0) -> None:
        super().__init__(str(filename) if filename else None, reactor, saveTimer)
        self.numbers: list[int] | None = []

    def getAttr(self) -> Any:
        return self.numbers

    def setAttr(self, attr: Any) -> None:
        self.numbers = attr

    def attrSaveable(self) -> bool:
        return self.numbers is not None

    def exportAttr(self, data: Any) -> Any:
        return [str(number) for number in data]

    def importAttr(self, pyld: Any) -> Any:
        return [int(text) for text in pyld]


class TestStorage:
    def test_what_was_saved_is_loaded(self, tmp_path: Path) -> None:
        store = Numbers(tmp_path / "deep" / "file")
        assert not store.loadFromDisk()
        store.numbers = [1, 2]
        store.saveToDisk()
        again = Numbers(tmp_path / "deep" / "file")
        assert again.loadFromDisk() and again.numbers == [1, 2]
        assert json.loads((tmp_path / "deep" / "file").read_text()) == {"format": 1, "data": ["1", "2"]}

    def test_nothing_to_save(self, tmp_path: Path) -> None:
        store = Numbers(tmp_path / "file")
        store.numbers = None
        store.saveToDisk()
        assert not (tmp_path / "file").exists()
        Numbers(None).saveToDisk()
        assert not Numbers(None).loadFromDisk()

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2, "data": []}', b'{"format": 1}',
                                         b'{"format": 1, "data": ["x"]}', b"\x80\x04pickle", b'{"format":1,"data":5}'])
    def test_what_cannot_be_read_is_kept(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        for _ in range(2):
            store = Numbers(tmp_path / "file")
            assert not store.loadFromDisk() and store.numbers == []
        store.saveToDisk()
        (aside,) = tmp_path.glob("file.unreadable-*")
        assert aside.read_bytes() == content
        assert Numbers(tmp_path / "file").loadFromDisk()

    def test_the_timer_saves(self, tmp_path: Path) -> None:
        async def scene() -> None:
            store = Numbers(tmp_path / "file", asyncio.get_running_loop(), 0.01)
            store.numbers = [7]
            for _ in range(200):
                await asyncio.sleep(0.01)
                if (tmp_path / "file").exists():
                    break

        asyncio.run(scene())
        assert (tmp_path / "file").exists()

    def test_a_failed_save_leaves_the_old(self, tmp_path: Path) -> None:
        store = Numbers(tmp_path / "file")
        store.saveToDisk()
        store.exportAttr = lambda data: object()  # type: ignore[method-assign]
        with pytest.raises(TypeError):
            store.saveToDisk()
        assert Numbers(tmp_path / "file").loadFromDisk()


WRITER = """
import sys
from paradrop.lib.utils.storage import PDStorage
class Store(PDStorage):
    def getAttr(self): return {"number": self.number, "ballast": "x" * 300_000}
    def attrSaveable(self): return True
store = Store(sys.argv[1], None, 0)
for store.number in range(1, 10**6):
    store.saveToDisk()
    sys.stdout.write(f"{store.number}\\n"); sys.stdout.flush()
"""


def test_killed_at_any_moment_the_file_holds_the_last_save_or_the_one_under_way(tmp_path: Path) -> None:
    place = tmp_path / "file"
    last = 0
    for attempt in range(12):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.Random(attempt).uniform(0, 0.05))
        child.kill()
        told = child.stdout.read().split()
        child.stdout.close()
        child.wait(10)
        last = int(told[-1]) if told else 1
        number = json.loads(place.read_text())["data"]["number"]
        assert last <= number <= last + 1
    assert last
    assert len(os.listdir(tmp_path)) <= 2
    pdosq.replaceFile(place, b"x")
    assert os.listdir(tmp_path) == ["file"]


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    place = tmp_path / "file"
    contents = [bytes([number]) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=lambda content=content: [pdosq.replaceFile(place, content) for _ in range(5)])
               for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert place.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]
