"""File systems in files: made, checked as at boot, mounted; and a disk that can lose power, as a file to mount from."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage import tools
from pdimage.errors import PartFailed
from pdimage.lab.nbd import Server
from pdimage.lab.volatile import Disk

_SECONDS = 20.0


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system for a disk of so many MEGABYTES; the disk's file is added to MAKE and to CHECKS.

    ``checks`` is what a system runs at boot before it mounts: the next if one can't repair what it finds. With
    ``overlay`` an overlayfs lies on top of it.
    """

    name: str
    kernel: str
    megabytes: int
    make: tuple[str, ...]
    checks: tuple[tuple[str, ...], ...] = ()
    options: str = "defaults"
    overlay: bool = False

    def missing(self) -> str:
        """Return why it can't be used on this machine, or an empty text."""
        known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
        for kernel in (self.kernel, *(["overlay"] if self.overlay else [])):
            # a kernel may have it as a module
            if kernel not in known and subprocess.run(["modprobe", "-q", kernel], check=False).returncode:
                return f"this kernel has no {kernel}"
        absent = [program for program, *_ in (self.make, *self.checks) if shutil.which(program) is None]
        return f"{absent[0]} is not there" if absent else ""


_EXT4 = ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4")
# "-p" gives up on a superblock that is torn (it lies in two sectors); "-y", fsck.repair=yes at boot, takes its backup.
_E2FSCK = (("e2fsck", "-p"), ("e2fsck", "-y"))
# btrfs counts on a disk that never tears its superblock of 4096 bytes; this copies it from the backup if it does.
_SUPER_RECOVER = (("btrfs", "rescue", "super-recover", "-y"),)
# A commit each second gives more moments at which something is half done than the usual five or thirty.
FILESYSTEMS = {each.name: each for each in (
    FileSystem("ext4", "ext4", 64, _EXT4, _E2FSCK, "commit=1"),
    FileSystem("xfs", "xfs", 300, ("mkfs.xfs", "-q", "-K")),
    FileSystem("btrfs", "btrfs", 128, ("mkfs.btrfs", "-q", "-K"), _SUPER_RECOVER, "commit=1"),
    FileSystem("f2fs", "f2fs", 64, ("mkfs.f2fs", "-q"), (("fsck.f2fs", "-a"),)),
    FileSystem("overlay", "ext4", 64, _EXT4, _E2FSCK, "commit=1", overlay=True),
)}


def make(kind: FileSystem, image: Path) -> None:
    """Make an empty file system in the new file IMAGE."""
    with image.open("xb") as file:
        file.truncate(kind.megabytes << 20)
    tools.run([*kind.make, image], what=f"make {kind.name}")


def check(kind: FileSystem, image: Path) -> bool:
    """Do what a boot does before it mounts; return whether something had to be repaired.

    :raises PartFailed: it can't be repaired without a person
    """
    code, output = 0, ""
    for argv in kind.checks:
        code, output = tools.attempt([*argv, image], what=f"check {kind.name}")
        if code < 4:  # fsck(8): 1 and 2 are errors that were corrected
            return code != 0
    if code:
        raise PartFailed(f"cannot check {kind.name}: it ended with {code}:\n{tools.last_lines(output)}")
    return False


@contextlib.contextmanager
def mounted(kind: FileSystem, source: Path, place: Path) -> Iterator[Path]:
    """Mount what is in SOURCE below PLACE, and return the directory to work in. A dead disk can be unmounted as well.

    :raises PartFailed: it can't be mounted
    """
    disk, merged = place / "disk", place / "merged"
    with contextlib.ExitStack() as stack:
        options = kind.options if source.is_block_device() else f"loop,{kind.options}"
        stack.enter_context(_mount(["-t", kind.kernel, "-o", options, str(source)], disk))
        if not kind.overlay:
            yield disk
            return
        lower, upper, work = (disk / name for name in ("lower", "upper", "work"))
        for directory in (lower, upper, work):
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        stack.enter_context(_mount(["-t", "overlay", "-o", layers, "lab"], merged))
        yield merged


@contextlib.contextmanager
def _mount(words: list[str], point: Path) -> Iterator[None]:
    point.mkdir(parents=True, exist_ok=True)
    tools.run(["mount", *words, point], what="mount a disk")
    try:
        yield
    finally:
        tools.run(["umount", point], what="unmount a disk")


@contextlib.contextmanager
def attached(disk: Disk, place: Path) -> Iterator[Path]:
    """Offer DISK as a file, to mount from: NBD, QEMU's storage daemon, FUSE.

    The daemon has a mount namespace of its own, without what is mounted from the file later. Else, when all of us is
    killed, it could be the one that the kernel lets unmount that, and wait for its own answers for ever.

    :raises SystemSetup: this machine can't do that
    """
    socket, shared = place / "nbd", place / "shared"
    export = shared / "export"
    shared.mkdir(exist_ok=True)
    with Server(disk, socket), _mount(["--bind", str(shared)], shared):
        # what the daemon mounts in there is seen here as well
        tools.run(["mount", "--make-shared", shared], what="share a mount")
        export.write_bytes(b"")
        node = f"driver=nbd,node-name=disk,server.type=unix,server.path={socket}"
        argv = ["unshare", "--mount", "--propagation", "unchanged", "qemu-storage-daemon", "--blockdev", node,
                "--export", f"type=fuse,id=file,node-name=disk,mountpoint={export},writable=on"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True) as daemon:
            try:
                _await_mount(daemon, export)
                yield export
            finally:
                daemon.kill()
                daemon.wait()
                subprocess.run(["umount", "--lazy", export], stderr=subprocess.DEVNULL, check=False)


def _await_mount(daemon: "subprocess.Popen[str]", export: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while os.stat(export).st_dev == os.stat(export.parent).st_dev:
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            assert daemon.stderr
            raise SystemSetup(f"cannot attach a disk: {daemon.stderr.read().strip() or 'FUSE does not answer'}; "
                              "qemu-system-common, fuse3 and /dev/fuse are needed")
        time.sleep(0.002)
