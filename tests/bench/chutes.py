"""How installing a chute slows down with the number that is there: ``python tests/bench/chutes.py``.

100 chutes, each with a LAN port of its own, a DHCP server, a port and a redirect, are installed one after the other in
a new network namespace, as root. Containers are left out; everything else is real, the DHCP servers too. The hundredth
install may take twice as long as the first.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from paradrop.backend.exc import state
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.fc.updateObject import parse
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.main import ConfigService
from paradrop.lib import settings
from paradrop.lib.config import devices
from paradrop.lib.utils import dockerapi

CLONE_NEWNET = 0x40000000
COUNT = 100
ENDS = 10  # installs at either end, of which the fastest counts: others may use the machine too
TARGET = 2.0
CONTAINER_TIME = ("prepareImages", "retireContainers", "startChute", "cleanUp")


def chute(number: int) -> dict[str, object]:
    """Return a create update."""
    return {
        "updateClass": "CHUTE", "updateType": "create", "name": f"chute{number}", "version": 1,
        "dockerfile": "FROM busybox\n", "environment": {"NUMBER": number},
        "host_config": {"port_bindings": {80: 20000 + number}},
        "net": {"lan": {"type": "lan", "intfName": "lan0", "dhcp": {"lease": "12h", "start": 100, "limit": 50}}},
        "firewall": [{"type": "redirect", "name": f"web{number}", "from": f"@host.lan:{30000 + number}",
                      "to": "lan:80"}],
    }


def install(count: int) -> list[float]:
    """Install chutes on an empty router and return the seconds that each took."""
    with tempfile.TemporaryDirectory() as directory, mock.patch.multiple(
            dockerapi, **{name: lambda update: None for name in CONTAINER_TIME}), mock.patch.object(
            state, "checkEngine", lambda update: None), mock.patch.object(devices, "SYS_NET", Path(directory) / "sys"):
        settings.relocate(directory)
        links = ["wan0", *(f"lan{number}" for number in range(count))]
        for number, name in enumerate(links):
            ip("link", "add", "name", name, "type", "veth", "peer", "name", f"{name}peer")
            (Path(directory) / "sys" / name).mkdir(parents=True)
            (Path(directory) / "sys" / name / "ifindex").write_text(str(number + 2))
            (Path(directory) / "sys" / name / "address").write_text(f"02:00:00:00:00:{number:02x}")
        ip("link", "set", "dev", "wan0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "wan0")
        ip("route", "add", "default", "via", "192.0.2.254")
        ChuteStorage.chuteList = {}
        manager = ConfigService.configManager = ConfigManager(settings.PDCONFD_WRITE_DIR)
        try:
            return [_install(number) for number in range(count)]
        finally:
            manager.unload()
            for name in links:
                ip("link", "delete", "dev", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def _install(number: int) -> float:
    start = time.perf_counter()
    update = parse(chute(number))
    update.execute()
    seconds = time.perf_counter() - start
    if not update.result or not update.result["success"]:
        raise RuntimeError(f"cannot install {number}: {update.result}")
    return seconds


def main() -> int:
    """Print the times; 1 if the target is missed."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        print("cannot measure: a network namespace needs root", file=sys.stderr)
        return 2
    install(2)  # for what is imported and cached once
    times = install(COUNT)
    first, last = min(times[:ENDS]), min(times[-ENDS:])
    print(f"first installs of {COUNT}  {1000 * first:6.1f} ms")
    print(f"last installs of {COUNT}   {1000 * last:6.1f} ms  {last / first:.2f} times as long (target {TARGET:.0f})")
    return int(last > TARGET * first)


if __name__ == "__main__":
    sys.exit(main())
