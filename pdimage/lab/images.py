"""Makes the system that virtual routers boot, from Debian packages, and keeps it under a name made of its content.

::

    CACHE/templates/debian-KEY/
        disk.raw       root file system, ext4; never written again: machines use overlays of it
        vmlinux        its kernel, unpacked
        initrd         first file system of each machine, see kernel.py
        packages       what it consists of, a line for each package

One system serves two flavours, which differ in the first program that the kernel is told to start: ``minimal`` (busybox
init: ssh and little else) and ``router`` (systemd, Docker). Packages come from where apt of this machine takes them.
"""

import ast
import hashlib
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage import scratch, tools
from pdimage.lab import costs, dirlock, kernel
from pdimage.tools import Progress

log = logging.getLogger(__name__)

PACKAGES = (
    "apparmor", "btrfs-progs", "busybox-static", "ca-certificates", "cron", "curl", "dbus", "dnsmasq-base", "docker.io",
    "e2fsprogs", "f2fs-tools", "gnupg", "hostapd", "iproute2", "iptables", "iputils-ping", "iw", "kmod",
    "linux-image-amd64", "nftables", "openssh-server", "procps", "psmisc", "python3", "qemu-guest-agent", "rsync",
    "systemd-sysv", "tcpdump", "udev", "wireless-regdb", "wpasupplicant", "xfsprogs", "zstd",
)
FLAVOURS: Mapping[str, str] = {"minimal": "/usr/lib/lab/init", "router": "/lib/systemd/systemd"}
SIZE = "4G"
# What a machine without sound, screen and disks of iron has no use for; under kernel/ of the modules.
UNUSED_MODULES = (
    "sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging", "drivers/scsi", "drivers/isdn",
    "drivers/net/ethernet", "drivers/iio", "drivers/ata", "drivers/hwmon", "drivers/usb", "drivers/mmc", "drivers/mtd",
    "drivers/nvme", "drivers/bluetooth", "drivers/input", "drivers/hid", "drivers/platform", "drivers/comedi",
    "drivers/thunderbolt", "drivers/target", "drivers/edac", "drivers/video", "drivers/i2c", "drivers/spi",
    "drivers/leds", "drivers/power", "drivers/message", "drivers/firewire", "drivers/pcmcia", "drivers/parport",
    "drivers/rtc", "drivers/regulator", "drivers/mfd", "drivers/extcon", "drivers/gpio", "drivers/soundwire",
    "drivers/accel", "net/bluetooth", "net/nfc", "net/can", "net/rds", "net/tipc", "net/sctp", "net/ceph", "net/rxrpc",
    "net/9p", "fs/ocfs2", "fs/gfs2", "fs/ceph", "fs/cifs", "fs/nfs", "fs/nfsd", "fs/afs", "fs/reiserfs", "fs/jfs",
    "fs/dlm",
)
UNUSED_FILES = ("boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
                "var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "usr/lib/udev/hwdb.bin",
                "usr/lib/udev/hwdb.d")
# Timers and services that would keep an emulated processor busy after each boot.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
          "systemd-timesyncd.service", "systemd-pstore.service", "e2scrub_reap.service", "getty@tty1.service",
          "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-journal-flush.service",
          "hostapd.service", "wpa_supplicant.service", "systemd-networkd-wait-online.service", "modprobe@drm.service",
          "systemd-hwdb-update.service", "ldconfig.service", "keyboard-setup.service", "nftables.service")


@dataclass(frozen=True)
class System:
    """A bootable system: the files in DIRECTORY, see the top of this module."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"


def debian(cache: Path, *, progress: Progress = lambda step: None) -> System:
    """Return the system made of Debian packages, built if it is not in CACHE yet (a minute or two, as root).

    :raises SystemSetup: this machine cannot build it
    :raises PartFailed: a package could not be fetched or installed
    """
    directory = cache / "templates" / f"debian-{key()}"
    system = System(directory)
    if system.directory.is_dir():
        return system
    if os.geteuid() != 0:
        raise SystemSetup("cannot build a system for virtual routers: its files belong to root; run it as root once, "
                          "others can use it from the cache then")
    missing = [name for name in ("mmdebstrap", "mke2fs", "modprobe", "chroot") if shutil.which(name) is None]
    if missing:
        raise SystemSetup(f"cannot build a system for virtual routers: {', '.join(missing)} missing; "
                          "apt-get install mmdebstrap e2fsprogs kmod")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with dirlock.held(directory.parent):
        if not system.directory.is_dir():  # somebody else may have built it while we waited
            with costs.measured("build a system from packages"):
                _build(directory, progress)
    return system


def key() -> str:
    """Return the name that the system has by what it is made of: Debian's release, packages, and how we go about it."""
    digest = hashlib.sha256(repr((suite(), PACKAGES, UNUSED_MODULES, UNUSED_FILES, MASKED, SIZE)).encode())
    for path in (Path(__file__), Path(kernel.__file__)):
        digest.update(ast.dump(ast.parse(path.read_bytes())).encode())  # layout and comments do not count
    return digest.hexdigest()[:16]


def suite() -> str:
    """Return the Debian release of this machine, such as ``bookworm``."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def _build(directory: Path, progress: Progress) -> None:
    with scratch.directory(directory.parent, directory.name) as work:
        rootfs, made = work / "rootfs", work / "made"
        made.mkdir()
        progress("a system from Debian packages")
        _install(rootfs)
        version = next(path.name for path in (rootfs / "lib/modules").iterdir())
        vmlinuz = rootfs / f"boot/vmlinuz-{version}"
        progress("its kernel and disk")
        (made / "vmlinux").write_bytes(kernel.unpacked(vmlinuz))
        listed = tools.run(["chroot", rootfs, "dpkg-query", "-W", "-f", "${Package} ${Version}\\n"],
                           what="list packages")
        (made / "packages").write_text(listed)
        _prune(rootfs, version)
        (made / "initrd").write_bytes(kernel.initrd(rootfs, version))
        _prepare(rootfs)
        tools.run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", rootfs, "-E", "lazy_itable_init=0,nodiscard",
                   "-N", "262144", made / "disk.raw", SIZE], what="make a disk")
        made.rename(directory)


def _install(rootfs: Path) -> None:
    """Unpack and configure the packages; apt is told to take them from where this machine's own takes them."""
    environment = ["env", "INITRD=No"]  # else initramfs-tools makes one that nobody uses
    tools.run([*environment, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
               "--include", ",".join(PACKAGES), '--aptopt=Acquire::Languages "none"',
               "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
               "--dpkgopt=path-exclude=/usr/share/doc/*", *_apt_options(), suite(), rootfs, *_sources()],
              what="make a system from Debian packages")


def _sources() -> list[Path]:
    """Return the files that tell apt of this machine where packages are."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list")),
             *sorted(apt.glob("sources.list.d/*.sources"))]
    used = [path for path in files if path.is_file() and path.stat().st_size
            and "debian" in path.read_text(errors="replace")]
    if not used:
        raise SystemSetup("cannot make a system from Debian packages: apt of this machine has no Debian archive; "
                          "add one to /etc/apt/sources.list.d")
    return used


def _apt_options() -> Iterator[str]:
    """Yield the settings of this machine's apt that say how to reach the archive (proxies, tries, time limits)."""
    for line in tools.run(["apt-config", "dump"], what="read the settings of apt").splitlines():
        name, _, value = line.partition(" ")
        if name.startswith(("Acquire::http", "Acquire::https", "Acquire::Retries")) and value != '"";':
            yield f"--aptopt={line.rstrip(';')}"


def _prune(rootfs: Path, version: str) -> None:
    """Delete what no virtual router needs."""
    for name in UNUSED_MODULES:
        shutil.rmtree(rootfs / "lib/modules" / version / "kernel" / name, ignore_errors=True)
    for name in UNUSED_FILES:
        path = rootfs / name
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink()
        else:
            path.unlink(missing_ok=True)
    tools.run(["depmod", "-b", rootfs, version], what="index the drivers")


def _prepare(rootfs: Path) -> None:
    """Settle what starts at boot. The lab's own programs come with the seed of each machine (sysprep.py)."""
    (rootfs / "etc/fstab").write_text("")
    (rootfs / "etc/machine-id").write_text("")
    (rootfs / "etc/resolv.conf").unlink(missing_ok=True)
    (rootfs / "etc/resolv.conf").write_text("")
    (rootfs / "etc/ssh/sshd_config.d/lab.conf").write_text("UseDNS no\nPermitRootLogin prohibit-password\n")
    for path in rootfs.glob("etc/ssh/ssh_host_*"):
        path.unlink()
    tools.run(["systemctl", "--root", rootfs, "mask", *MASKED], what="mask services")
    tools.run(["systemctl", "--root", rootfs, "disable", "docker.socket"], what="disable services")
    tools.run(["systemctl", "--root", rootfs, "set-default", "multi-user.target"], what="choose what starts")
