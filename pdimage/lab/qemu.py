"""The command line that starts QEMU for a machine. Nothing is started here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Drive:
    """A disk. ``serial`` is how the guest knows it; ``file`` is a path, or an address such as ``nbd:unix:SOCKET``."""

    serial: str
    file: str
    format: str = "qcow2"


@dataclass(frozen=True)
class Card:
    """A network card with the tap device that it is plugged into."""

    tap: str
    mac: str


@dataclass(frozen=True)
class Hardware:
    """A machine as QEMU needs to know it. ``incoming``: a file with the memory of a running machine to go on from.

    ``ports``: names of lines (virtio-serial) between a program in it and one of the host, at the socket NAME.PORT.
    """

    name: str
    kernel: Path
    initrd: Path
    init: str
    accel: str
    memory: int = 512
    vcpu: int = 2
    drives: tuple[Drive, ...] = ()
    cards: tuple[Card, ...] = ()
    ports: tuple[str, ...] = ()
    watchdog: bool = False
    incoming: Path | None = None
    console_log: Path | None = None
    append: str = ""


def command_line(hardware: Hardware) -> list[str]:
    """Return the command line; sockets are named after the machine and lie in the working directory.

    NAME.qmp is QEMU's monitor, NAME.agent the guest agent, NAME.console the serial line.
    """
    return ["qemu-system-x86_64", *_words(hardware)]


def _words(hardware: Hardware) -> Iterator[str]:
    name = hardware.name
    yield from ("-name", f"{name},debug-threads=on", "-nodefaults", "-no-user-config", "-display", "none")
    yield from ("-machine", "q35", *accelerator(hardware.accel), "-smp", str(hardware.vcpu), "-m", str(hardware.memory))
    yield from ("-kernel", str(hardware.kernel), "-initrd", str(hardware.initrd), "-append", kernel_words(hardware))
    for drive in hardware.drives:
        yield from ("-drive", f"id={drive.serial},if=none,format={drive.format},cache=writeback,discard=unmap,"
                    f"file={escaped(drive.file)}")
        yield from ("-device", f"virtio-blk-pci,drive={drive.serial},serial={drive.serial}")
    for number, card in enumerate(hardware.cards):
        yield from ("-netdev", f"tap,id=net{number},ifname={card.tap},script=no,downscript=no")
        yield from ("-device", f"virtio-net-pci,id=card{number},netdev=net{number},mac={card.mac},romfile=")
    yield from ("-device", "virtio-serial-pci", "-device", "virtio-rng-pci")
    yield from ("-chardev", f"socket,id=agent,path={name}.agent,server=on,wait=off")
    yield from ("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0")
    for port in hardware.ports:
        yield from ("-chardev", f"socket,id=port-{port},path={name}.{port},server=on,wait=off")
        yield from ("-device", f"virtserialport,chardev=port-{port},name={port}")
    log = f",logfile={escaped(str(hardware.console_log))},logappend=on" if hardware.console_log else ""
    yield from ("-chardev", f"socket,id=console,path={name}.console,server=on,wait=off{log}")
    yield from ("-serial", "chardev:console")
    yield from ("-qmp", f"unix:{name}.qmp,server=on,wait=off")
    if hardware.watchdog:
        yield from ("-device", "i6300esb", "-action", "watchdog=reset")
    if hardware.incoming:
        yield from ("-incoming", "defer")


def accelerator(name: str) -> tuple[str, ...]:
    """Return the words for KVM or for QEMU's own emulation, with the processor that suits it.

    >>> accelerator("kvm")
    ('-accel', 'kvm', '-cpu', 'host')
    """
    if name == "kvm":
        return "-accel", "kvm", "-cpu", "host"
    return "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"


def kernel_words(hardware: Hardware) -> str:
    """Return the kernel's command line. A kernel that panics starts the machine again after a second.

    A superblock of ext4 that a power cut tore needs ``fsck.repair=yes``, or somebody who answers e2fsck's questions.
    """
    words = ["console=ttyS0", "root=/dev/vda", f"lab.init={hardware.init}", "quiet", "mitigations=off", "net.ifnames=0",
             "panic=1", "fsck.repair=yes", "random.trust_cpu=on", "tsc=reliable", hardware.append]
    return " ".join(filter(None, words))


def escaped(value: str) -> str:
    """Return a value as QEMU's options want it: a comma is written twice.

    >>> escaped("a,b")
    'a,,b'
    """
    return value.replace(",", ",,")
