"""An ext4 file system of its own, on a loop device, whose writes can be counted and whose cache can be made cold."""

import ctypes
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

DISK_SIZE = 4 << 30
SECTOR = 512
CLONE_NEWNS = 0x00020000


def run(*argv: str | Path) -> str:
    """Run a program and return what it printed.

    :raises OSError: it failed; the message has what it said
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def own_mounts() -> None:
    """Give this process mounts of its own: nobody else can hold ours busy, and they go when we go (unshare(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "cannot have mounts of our own")
    run("mount", "--make-rprivate", "/")


def cool() -> None:
    """Empty the machine's caches of files: what runs next reads from the disk."""
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class Disk:
    """A context manager: inside it ``mount`` is an empty ext4 file system; afterwards nothing of it is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            descriptor, name = tempfile.mkstemp(prefix="disk-", suffix=".img", dir=self.folder)
            self.image = Path(name)
            stack.callback(self.image.unlink)
            os.truncate(descriptor, DISK_SIZE)
            os.close(descriptor)
            self.mount = Path(tempfile.mkdtemp(prefix="fussy-bench-"))
            stack.callback(self.mount.rmdir)
            stack.callback(self.unmount)
            self.renew()
            self.undo = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.undo.close()

    def unmount(self) -> None:
        """Take the file system away; the processes of a job that was killed may need a moment to let go of it."""
        tries = 50
        while self.mount.is_mount():
            try:
                run("umount", self.mount)
            except OSError:
                tries -= 1
                if not tries:
                    raise
                time.sleep(0.1)

    def renew(self) -> None:
        """Make the file system anew. Nothing is left for the kernel to initialise later: that would count as writes."""
        self.unmount()
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        device = run("losetup", "--find", "--show", self.image)  # mount -o loop would ask every device of the machine
        try:
            run("mount", device, self.mount)
        finally:
            run("losetup", "--detach", device)  # goes with the mount
        self.loop = Path(device).name

    def settle(self) -> None:
        """Write back what is dirty here."""
        run("sync", "-f", self.mount)

    def written(self) -> int:
        """Return the bytes written to the device since it was mounted (kernel: Documentation/block/stat.rst)."""
        return int(Path("/sys/block", self.loop, "stat").read_text().split()[6]) * SECTOR
