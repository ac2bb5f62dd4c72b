"""What makes one machine out of a system that many share: name, keys, password, addresses.

Each function returns files to put in, by path; :func:`sysprep` writes them beside the machine's disk, as an archive
that goes into its first file system. The first program copies them onto the disk at the first boot from it. So nothing
of a guest's file system is ever opened on the host, and it takes no time.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage.lab.cpio import Entry, archive

GUEST = Path(__file__).parent / "guest"
Files = Mapping[str, Entry]
_PROGRAMS = ("boot", "hardware", "ready", "udhcpc")
_UNITS = {"lab-hardware.service": ("sysinit.target", "network-online.target"),
          "lab-ready.service": ("multi-user.target",)}


def sysprep(disk: str | Path, mods: Iterable[Files]) -> Path:
    """Write the files of MODS for the machine with DISK; return the archive, DISK.seed.

    Later files go before earlier ones of the same path. A machine takes an archive once; a changed one is taken again.
    """
    files: dict[str, Entry] = {**_own()}
    for mod in mods:
        files.update(mod)
    entries = {f"seed/{path.lstrip('/')}": entry for path, entry in files.items()}
    entries["seed/etc/lab/seed"] = Entry(hashlib.sha256(archive(entries)).hexdigest().encode())
    entries["init"] = Entry.program((GUEST / "initrd-init").read_bytes())
    path = Path(f"{disk}.seed")
    temporary = path.with_name(path.name + "~")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(archive(entries))
    temporary.replace(path)
    return path


def _own() -> Files:
    """Return the lab's programs, and what systemd needs to start them."""
    files = {f"usr/lib/lab/{name}": Entry.program((GUEST / name).read_bytes()) for name in _PROGRAMS}
    files["usr/lib/lab/init"] = link("/bin/busybox")
    files["etc/inittab"] = Entry((GUEST / "inittab").read_bytes())
    for unit, targets in _UNITS.items():
        files[f"etc/systemd/system/{unit}"] = Entry((GUEST / unit).read_bytes())
        for target in targets:
            files[f"etc/systemd/system/{target}.wants/{unit}"] = link(f"/etc/systemd/system/{unit}")
    # PAM would be a quarter of the time that a connection takes under emulation; of two settings the first counts
    files["etc/ssh/sshd_config.d/00-lab.conf"] = Entry(b"UsePAM no\n")
    # Docker takes long to start under emulation; whoever waits for ssh need not wait for it
    files["etc/systemd/system/docker.service.d/lab.conf"] = Entry(b"[Unit]\nAfter=lab-ready.service\n")
    return files


def link(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(target.encode(), stat.S_IFLNK | 0o777)


def set_hostname(hostname: str) -> Files:
    """Name the machine."""
    return _write_file("/etc/hostname", f"{hostname}\n")


def set_machine_id(name: str) -> Files:
    """Give the machine the identity (machine-id(5)) that follows from NAME, which no other machine must have."""
    return _write_file("/etc/machine-id", f"{hashlib.sha256(name.encode()).hexdigest()[:32]}\n")


def set_root_password(password: str) -> Files:
    """Give root this password, for logins at the console; it is hashed by the first program."""
    return {"/etc/lab/password": Entry.secret(password.encode())}


def add_ssh_key(key: str, with_restorecon_fix: bool = False) -> Files:
    """Let the public KEY (the file that has it) in as root. Files are labelled anew at boot WITH_RESTORECON_FIX."""
    files = {"/root/.ssh/authorized_keys": Entry.secret(Path(key).read_bytes())}
    return {**files, **_write_file("/.autorelabel", "")} if with_restorecon_fix else files


def set_host_key(key: Path) -> Files:
    """Give the ssh server this key (file of the secret half), so that clients know the machine from the start."""
    return {"/etc/ssh/ssh_host_ed25519_key": Entry.secret(key.read_bytes()),
            "/etc/ssh/ssh_host_ed25519_key.pub": Entry(key.with_name(key.name + ".pub").read_bytes())}


def set_iscsi_initiator_name(name: str) -> Files:
    """Name the machine as iSCSI initiator."""
    return _write_file("/etc/iscsi/initiatorname.iscsi", f"InitiatorName={name}\n")


def set_selinux_mode(mode: str) -> Files:
    """Set SELinux to ``enforcing``, ``permissive`` or ``disabled``, where the system has it."""
    return _write_file("/etc/selinux/config", f"SELINUX={mode}\nSELINUXTYPE=targeted\n")


def set_nameserver(address: str) -> Files:
    """Ask ADDRESS for names."""
    return _write_file("/etc/resolv.conf", f"nameserver {address}\n")


def load_modules(modules: Mapping[str, str]) -> Files:
    """Load drivers at boot; the values are their options."""
    lines = [f"{name} {options}".rstrip() for name, options in modules.items()]
    return _write_file("/etc/lab/modules", "".join(f"{line}\n" for line in lines))


def mount_disks(places: Mapping[str, str]) -> Files:
    """Mount disks at boot: places by the serial numbers of disks; each is checked and repaired before."""
    return _write_file("/etc/lab/mounts", "".join(f"{serial} {place}\n" for serial, place in places.items()))


def use_watchdog() -> Files:
    """Let systemd feed the hardware's watchdog, and the machine be reset ten seconds after it stopped doing so."""
    return _write_file("/etc/systemd/system.conf.d/lab.conf", "[Manager]\nRuntimeWatchdogSec=10\n")


def config_net_interface_dhcp(iface: str, hwaddr: str) -> Files:
    """Let the interface with the hardware address HWADDR ask for an address."""
    return _config_net_interface(iface, hwaddr=hwaddr, address="dhcp")


def config_net_interface_static(iface: str, hwaddr: str, address: str, gateway: str | None = None) -> Files:
    """Give the interface with the hardware address HWADDR an ADDRESS (with prefix length), and a way out."""
    return _config_net_interface(iface, hwaddr=hwaddr, address=address, gateway=gateway or "-")


def config_net_interface_none(iface: str, hwaddr: str) -> Files:
    """Bring the interface up without an address."""
    return _config_net_interface(iface, hwaddr=hwaddr, address="-")


def _config_net_interface(iface: str, **kwargs: str) -> Files:
    """Write what guest/hardware reads: hardware address, address, gateway, ``-`` for none."""
    line = " ".join((kwargs["hwaddr"], kwargs["address"], kwargs.get("gateway", "-")))
    return _write_file(f"/etc/lab/network/{iface}", f"{line}\n")


def _upload_file(local_path: str | Path, remote_path: str) -> Files:
    """Put a file or directory of the host in, with its permission bits; it belongs to root.

    :raises SystemSetup: it can't be read
    """
    try:
        mode = os.stat(local_path).st_mode
        if stat.S_ISDIR(mode):
            files = {remote_path: Entry(mode=mode)}
            for name in sorted(os.listdir(local_path)):
                files.update(_upload_file(Path(local_path, name), f"{remote_path}/{name}"))
            return files
        return {remote_path: Entry(Path(local_path).read_bytes(), mode)} if stat.S_ISREG(mode) else {}
    except OSError as error:
        raise SystemSetup(f"cannot prepare a machine: {local_path}: {error.strerror}") from error


def _write_file(path: str, content: str) -> Files:
    """Put a file with this content in."""
    return {path: Entry(content.encode())}
