"""The README of the fleet is what happens: its commands are run, and its devices install."""

import re
import shlex
from pathlib import Path

from tests.registry.conftest import AMPLE, register
from tests.registry.fleets import Device, paradrop, put_file
from tests.server.conftest import Start

README = Path(__file__).parents[2] / "pdimage/server/registry/fleet/README.rst"


def undated(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", text).rstrip()


def test_try_it(start: Start) -> None:
    server = start("--no-worker", **AMPLE)
    joe = register(server, "joesmith")
    put_file(server, "8.0", bytes(3_000_000))
    devices = []
    for name in ("badger", "aardvark", "civet", "dingo"):
        assert joe.post("/routers", {"name": name}).status == 201
        devices.append(Device(server, joe.name, name))
    shown = re.findall(r"^    \$ paradrop fleet (.*)\n((?:    [^$].*\n)*)", README.read_text(), re.MULTILINE)
    assert len(shown) == 9
    for line, said in shown:
        expected = re.sub("^    ", "", said, flags=re.MULTILINE)
        assert undated(paradrop(joe, *shlex.split(line))) == undated(expected), line
        if line.startswith("rollout start"):
            for device in (devices[0], *devices[2:]):
                assert device.fetch(), device.name
                assert device.say("closed", "success", "firmware 8.0 is in use") == 200
