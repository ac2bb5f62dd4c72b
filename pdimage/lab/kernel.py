"""Prepares Debian's kernel for a quick start: unpacked, and with a first program and few drivers.

QEMU starts an unpacked kernel directly (PVH), which saves the guest the work of unpacking itself; under emulation that
is a third of the way to ssh.
"""

import gzip
import lzma
import stat
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage import tools
from pdimage.errors import PartFailed
from pdimage.lab.cpio import Entry, archive

# What the first program needs to find the root file system.
FIRST_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
_XZ = b"\xfd7zXZ\x00"
_ELF = b"\x7fELF"


def unpacked(kernel: Path) -> bytes:
    """Return the ELF image inside a compressed kernel (``vmlinuz``) that was packed with xz, as Debian's are.

    :raises PartFailed: there is none in it
    """
    packed = kernel.read_bytes()
    start = packed.find(_XZ)
    while start >= 0:
        try:
            image = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed[start:])
        except lzma.LZMAError:
            image = b""
        if image.startswith(_ELF):
            return image
        start = packed.find(_XZ, start + 1)
    raise PartFailed(f"cannot unpack {kernel}: no ELF image packed with xz is in it; is it Debian's kernel for amd64?")


def initrd(rootfs: Path, version: str) -> bytes:
    """Return the first file system for the kernel VERSION of ROOTFS: busybox and drivers; its program is in sysprep.py.

    :raises SystemSetup: ROOTFS has no static busybox
    """
    busybox = next((path for name in ("bin/busybox", "usr/bin/busybox") if (path := rootfs / name).is_file()), None)
    if busybox is None:
        raise SystemSetup(f"cannot make an initrd: {rootfs} has no busybox; install busybox-static in it")
    shown = tools.run(["modprobe", "-d", rootfs, "-S", version, "--show-depends", "-a", *FIRST_MODULES],
                      what="find the drivers of a disk")
    files = list(dict.fromkeys(Path(words[1]) for line in shown.splitlines()
                               if (words := line.split())[0] == "insmod"))
    directory = Entry(mode=stat.S_IFDIR | 0o755)
    return gzip.compress(archive({
        "dev": directory, "proc": directory, "sys": directory, "sysroot": directory, "seed": directory,
        "bin/busybox": Entry.program(busybox.read_bytes()),
        "modules/order": Entry("".join(f"{path.name}\n" for path in files).encode()),
        **{f"modules/{path.name}": Entry(path.read_bytes()) for path in files},
    }), compresslevel=6, mtime=0)
