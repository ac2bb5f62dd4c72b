"""Devices of others with hawkBit's API: SWUpdate's own client installs from our server, RAUC's is played by the book.

RAUC's ``rauc-hawkbit-updater`` is in no Debian of today, so what it sends is replayed, request by request, from its
source (``src/hawkbit-client.c``).
"""

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import AMPLE, Person, register
from tests.registry.fleets import begin, counts, make_devices, put_file
from tests.server.conftest import Start
from tests.server.serverprocess import wait_until


@pytest.fixture
def joe(start: Start) -> Person:
    return register(start("--no-worker", poll_seconds=1, **AMPLE), "joejoejoe")


def cpio(*files: Path) -> bytes:
    """Return an archive as SWUpdate reads it: cpio with checksums (``cpio -H crc``)."""
    packed = b""
    for number, (name, data) in enumerate([*((file.name, file.read_bytes()) for file in files), ("TRAILER!!!", b"")]):
        fields = [number + 1, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data) & 0xFFFFFFFF]
        packed += b"070702" + b"".join(b"%08X" % one for one in fields) + name.encode() + b"\0"
        packed += bytes(-len(packed) % 4) + data
        packed += bytes(-len(packed) % 4)
    return packed + bytes(-len(packed) % 512)


def swu(place: Path) -> bytes:
    """Return an update that leaves a file beside itself, signed by a key whose certificate is ``certificate.pem``."""
    script = place / "install.sh"
    script.write_text(f"#!/bin/sh\necho $1 >> {place}/done\n")
    described = place / "sw-description"
    described.write_text(
        'software = {\n version = "8.0";\n hardware-compatibility: ["1.0"];\n scripts: ({ filename = "install.sh"; '
        f'type = "shellscript"; sha256 = "{hashlib.sha256(script.read_bytes()).hexdigest()}"; }});\n}}\n')
    key, certificate = place / "key.pem", place / "certificate.pem"
    for line in (["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=publisher", "-addext",
                  "extendedKeyUsage=emailProtection", "-keyout", key, "-out", certificate],
                 ["cms", "-sign", "-binary", "-nosmimecap", "-outform", "DER", "-in", described, "-signer", certificate,
                  "-inkey", key, "-out", place / "sw-description.sig"]):
        subprocess.run(["openssl", *line], check=True, capture_output=True, timeout=60)
    return cpio(described, place / "sw-description.sig", script)


class SwUpdate:
    """SWUpdate as a daemon that asks a hawkBit server, with all it starts."""

    def __init__(self, place: Path, joe: Person, name: str, *more: str) -> None:
        self.log = (place / "swupdate.log").open("ab")
        client = f"-t {joe.name} -u {joe.server.url} -i {name} -g {AMPLE['gateway_token']} -p 1 {' '.join(more)}"
        self.process = subprocess.Popen(
            ["swupdate", "-v", "-H", "router:1.0", "-k", place / "certificate.pem", "-u", client],
            env={**os.environ, "TMPDIR": str(place)}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True)

    def __enter__(self) -> None:
        """It runs."""

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.log.close()


def test_swupdate(joe: Person, tmp_path: Path) -> None:
    update = swu(tmp_path)
    name = make_devices(joe, 1)[0].name
    number = begin(joe, put_file(joe.server, "8.0", update, "firmware.swu"))
    with SwUpdate(tmp_path, joe, name):
        wait_until((tmp_path / "done").exists)
        wait_until(lambda: any("Installed" in line for line in messages(joe, number)))
    assert (tmp_path / "done").read_text() == "preinst\npostinst\n"
    assert counts(joe, number) == {"running": 1}  # it is good when it says so after a restart
    with SwUpdate(tmp_path, joe, name, "-c", "2"):
        wait_until(lambda: joe.get(f"/rollouts/{number}").body["state"] == "finished")
    assert counts(joe, number) == {"done": 1}


def messages(joe: Person, number: int) -> list[str]:
    found: list[str] = joe.get(f"/rollouts/{number}/routers").body["routers"][0]["messages"]
    return found


def test_rauc_hawkbit_updater(joe: Person) -> None:
    bundle = os.urandom(100_000)
    device = make_devices(joe, 1)[0]
    number = begin(joe, put_file(joe.server, "8.0", bundle))

    def said(finished: str, execution: str, detail: str = "", action: str = "", data: object = None) -> dict[str, Any]:
        """As ``json_build_status`` puts it together."""
        return {**({"id": action} if action else {}), "time": "20261129T225500", "status": {
            "result": {"finished": finished}, "execution": execution, **({"details": [detail]} if detail else {})},
            **({"data": data} if data else {})}

    def ask(method: str, url: str, body: object = None) -> dict[str, Any]:
        found = device.ask(method, url, body, Accept="application/json;charset=UTF-8")
        assert found.status == 200, found.data
        return dict(json.loads(found.data)) if found.data else {}

    tasks = ask("GET", "")
    assert tasks["config"]["polling"]["sleep"] == "00:00:01"
    assert "configData" in tasks["_links"]
    ask("PUT", "/configData", said("success", "closed", data={"product": "Terminator", "model": "T-1000"}))
    deployment = ask("GET", tasks["_links"]["deploymentBase"]["href"])
    action, chunk = deployment["id"], deployment["deployment"]["chunks"][0]
    assert (type(action), chunk["version"], chunk["name"]) == (str, "8.0", "firmware")
    artifact = chunk["artifacts"][0]
    fetched = device.ask("GET", artifact["_links"]["download"]["href"], Accept="application/octet-stream")
    assert (fetched.status, len(fetched.data)) == (200, artifact["size"])
    assert hashlib.sha1(fetched.data).hexdigest() == artifact["hashes"]["sha1"]
    feedback = f"/deploymentBase/{action}/feedback"
    for detail in ("Download complete. 12.34 MB/s", "File checksum OK.", "0% Installing", "100% Installing done."):
        ask("POST", feedback, said("none", "proceeding", detail, action))
        assert "deploymentBase" in ask("GET", "")["_links"]
    ask("POST", feedback, said("success", "closed", "Software bundle installed successfully.", action))
    assert set(ask("GET", "")["_links"]) == {"configData", "installedBase"}
    routers = joe.get(f"/rollouts/{number}/routers").body["routers"]
    assert (routers[0]["state"], routers[0]["reason"], len(routers[0]["messages"])) == (
        "done", "Software bundle installed successfully.", 5)
    assert joe.get("/fleet").body["routers"][0]["attributes"] == {"product": "Terminator", "model": "T-1000"}
