"""Which machine this is, and which start of the daemon on it."""

import hashlib
import secrets
from pathlib import Path

_SYS = Path("/sys")
_DMI = ("product_uuid", "product_serial", "board_serial", "chassis_serial")
_RUN = secrets.token_hex(4)


def machine(sys: Path = _SYS) -> str:
    """Return a digest of what belongs to the hardware, not to the disk: made anew each time.

    So a copy of the disk in another box differs. Cards count by their MAC addresses, where a device is behind them; a
    chute's or a tunnel's interface has none. Where the hardware tells nothing of itself, machine-id(5) must do.
    """
    cards = sorted(text for path in (sys / "class/net").glob("*/device") if (text := _read(path.parent / "address")))
    serials = [_read(sys / "class/dmi/id" / name) for name in _DMI]
    tree = _read(Path("/proc/device-tree/serial-number"))
    known = [text for text in (*cards, *serials, tree) if text] or [_read(Path("/etc/machine-id"))]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def boot() -> str:
    """Return what is the same as long as this process lives, and never again."""
    return f"{_read(Path('/proc/sys/kernel/random/boot_id'))}-{_RUN}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
