"""How much slower the hundredth chute is installed than the first: ``python tests/bench/chutes.py``.

Two routers, each in a process and a new network namespace of its own, as root: an empty one, and one with 99 chutes,
each with a LAN port of its own, a DHCP server, a port and a redirect. The same chute is installed on the one and on the
other in turns, so a slow minute of the machine hurts both. Containers are left out; everything else is real, the DHCP
servers too.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
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
ROUNDS = 15
TARGET = 2.0
FILL_LIMIT = 200  # seconds for the chutes that are there beforehand
CONTAINER_TIME = ("prepareImages", "retireContainers", "startChute", "cleanUp", "stopChute", "removeChute")


def chute(number: int) -> dict[str, object]:
    """Return the descriptor of a chute."""
    return {
        "version": 1, "dockerfile": "FROM busybox\n", "environment": {"NUMBER": number},
        "host_config": {"port_bindings": {80: 20000 + number}},
        "net": {"lan": {"type": "lan", "intfName": "lan0", "dhcp": {"lease": "12h", "start": 100, "limit": 50}}},
        "firewall": [{"type": "redirect", "name": f"web{number}", "from": f"@host.lan:{30000 + number}",
                      "to": "lan:80"}],
    }


@contextlib.contextmanager
def router() -> Iterator[None]:
    """Be a router with links for COUNT chutes, in a new network namespace."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        raise RuntimeError("cannot measure: a network namespace needs root")
    with tempfile.TemporaryDirectory() as directory, mock.patch.multiple(
            dockerapi, **{name: lambda update: None for name in CONTAINER_TIME}), mock.patch.object(
            state, "checkEngine", lambda update: None), mock.patch.object(devices, "SYS_NET", Path(directory) / "sys"):
        settings.relocate(directory)
        for number, name in enumerate(["wan0", *(f"lan{number}" for number in range(COUNT))]):
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
            yield
        finally:
            manager.unload()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def do(kind: str, number: int) -> float:
    """Create or delete a chute and return the seconds it took."""
    values = chute(number) if kind == "create" else {}
    start = time.perf_counter()
    update = parse({"updateClass": "CHUTE", "updateType": kind, "name": f"chute{number}", **values})
    update.execute()
    seconds = time.perf_counter() - start
    if not update.result or not update.result["success"]:
        raise RuntimeError(f"cannot {kind} {number}: {update.result}")
    return seconds


def serve(count: int, channel: Connection) -> None:
    """Fill a router with chutes, then install and remove one more each time the other end asks, and say how long."""
    logging.disable(logging.WARNING)  # there is no radio, and each update says so
    with router():
        for number in range(count):
            do("create", number)
        channel.send(0.0)
        while channel.recv():
            seconds = do("create", COUNT - 1)
            do("delete", COUNT - 1)  # before the other one is asked: the kernel makes links one at a time
            channel.send(seconds)


def measure() -> tuple[float, float, float]:
    """Return the medians of the first install's seconds, of the hundredth's, and of the ratio of each pair.

    Raises:
        RuntimeError: a router does not do its work.
    """
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(_served(count)) for count in (0, COUNT - 1)]
        for end in ends:
            _answer(end)
        rounds = [[_asked(end) for end in ends] for _ in range(ROUNDS + 1)][1:]  # the first one finds nothing cached
    return (median(first for first, _ in rounds), median(last for _, last in rounds),
            median(last / first for first, last in rounds))


@contextlib.contextmanager
def _served(count: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(count, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with contextlib.suppress(OSError):
            ours.send(False)
        process.join(60)
        if process.is_alive():
            process.terminate()


def _asked(end: Connection) -> float:
    end.send(True)
    return _answer(end)


def _answer(end: Connection) -> float:
    if not end.poll(FILL_LIMIT):
        raise RuntimeError("cannot measure: a router does not answer")
    try:
        return float(end.recv())
    except EOFError:
        raise RuntimeError("cannot measure: a router has ended; see above") from None


def main() -> int:
    """Print the times; 1 if the target is missed."""
    if os.geteuid() != 0:
        print("cannot measure: a network namespace needs root", file=sys.stderr)
        return 2
    first, last, ratio = measure()
    print(f"first install       {1000 * first:6.1f} ms")
    print(f"hundredth install   {1000 * last:6.1f} ms  {ratio:.2f} times as long (target {TARGET:.0f})")
    return int(ratio > TARGET)


if __name__ == "__main__":
    sys.exit(main())
