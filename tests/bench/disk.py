"""An ext4 file system of its own, on a loop device, whose writes can be counted and whose cache can be made cold."""

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

DISK_SIZE = 4 << 30
SECTOR = 512


def run(*argv: str | Path) -> str:
    """Run a program and return what it printed; its failure is ours."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


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
            stack.callback(os.unlink, name)
            os.truncate(descriptor, DISK_SIZE)
            os.close(descriptor)
            self.loop = Path(run("losetup", "--find", "--show", name))
            stack.callback(run, "losetup", "--detach", self.loop)
            self.mount = Path(tempfile.mkdtemp(prefix="fussy-bench-"))
            stack.callback(self.mount.rmdir)
            self.mounted = False
            stack.callback(self.unmount)
            self.renew()
            self.undo = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.undo.close()

    def unmount(self) -> None:
        if self.mounted:
            run("umount", self.mount)
            self.mounted = False

    def renew(self) -> None:
        """Make the file system anew. Nothing is left for the kernel to initialise later: that would count as writes."""
        self.unmount()
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.loop)
        run("mount", "-t", "ext4", self.loop, self.mount)
        self.mounted = True

    def settle(self) -> None:
        """Write back what is dirty here."""
        run("sync", "-f", self.mount)

    def written(self) -> int:
        """Return the bytes written to the device since it exists (kernel: Documentation/block/stat.rst)."""
        return int(Path("/sys/block", self.loop.name, "stat").read_text().split()[6]) * SECTOR
