"""Two server processes and many devices: the server is killed in the middle of a roll-out, again and again."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.registry.conftest import AMPLE, register
from tests.registry.fleets import Device, begin, counts, make_devices, put_file
from tests.server.conftest import Start
from tests.server.serverprocess import wait_until

DEVICES, KILLS = 16, 2


def install(device: Device, ended: threading.Event) -> str:
    """Do as devices do, whatever the server does: ask until there is something, and say how it ended until it heard it.

    Every fourth device falls back.
    """
    good = int(device.name[1:]) % 4 != 0
    said = ""
    while not ended.is_set():
        try:
            if not said and device.fetch() is None:
                time.sleep(0.05)
                continue
            said = "success" if good else "failure"
            if device.say("closed", said) == 200:
                return said
        except (urllib3.exceptions.HTTPError, AssertionError):  # the server is away, or was while it answered
            time.sleep(0.05)
    return ""


def is_free(url: str) -> bool:
    """Tell whether nobody listens at an address any more."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


@pytest.mark.slow
def test_killed_in_mid_roll_out(start: Start, store: dict[str, object]) -> None:
    server = start("--no-worker", processes=2, **AMPLE, **store)
    joe = register(server, "joejoejoe")
    devices = make_devices(joe, DEVICES, "field")
    number = begin(joe, put_file(server, "8.0"), "field", plan={"steps": [25, 50, 100], "failures": 100, "success": 10})
    ended = threading.Event()
    with ThreadPoolExecutor(DEVICES) as pool:
        running = [pool.submit(install, device, ended) for device in devices]
        try:
            for kill in range(1, KILLS + 1):
                wait_until(lambda kill=kill: sum(one.done() for one in running) >= kill * DEVICES // (KILLS + 1))
                server.kill()
                wait_until(lambda: is_free(server.url))  # its other process ends by itself
                server.start("--no-worker", "--listen", server.url.removeprefix("http://"))
            said = [one.result(timeout=90) for one in running]
        finally:
            ended.set()
    assert (said.count("success"), said.count("failure")) == (12, 4)
    assert counts(joe, number) == {"done": 12, "failed": 4}
    found = joe.get(f"/rollouts/{number}").body
    assert (found["state"], [sum(one.values()) for one in found["by_step"]]) == ("finished", [4, 4, 8])
    routers = joe.get(f"/rollouts/{number}/routers").body["routers"]
    assert len({one["pdid"] for one in routers}) == len(routers) == DEVICES
