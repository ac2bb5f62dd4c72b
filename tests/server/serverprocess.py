"""``pdimage serve`` and ``pdimage worker`` as processes, and a client of theirs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml

from fussy.gpghome import stop_agent

# Waiting for more than this means that something is wrong; the machine may be busy.
PATIENCE = 90.0


def wait_until(there: Callable[[], object]) -> None:
    """Wait until THERE says so, or the patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_catalogue(place: Path, *, openwrt: bool = False) -> Path:
    """Write a catalogue whose images are built in a moment: two versions, two boards, packages of a file each.

    OPENWRT: with a distribution built by the stand-in ImageBuilder, which is beside it.
    """
    place.mkdir(parents=True, exist_ok=True)
    (place / "base.yaml").write_text("platform: {paradrop: false, fussy: false}\n")
    for name in ("motd", "clock", "notes", "notes-new", "big", "slow"):
        file = place / name / f"share/{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * (200_000 if name == "big" else 1))
    many = place / "slow/many"
    many.mkdir(exist_ok=True)
    for number in range(3000):  # a build that takes some seconds
        (many / str(number)).write_text(str(number))

    def package(name: str, version: str, **more: object) -> dict[str, object]:
        return {"version": version, "image": {"overlay": [name]}, **more}

    old = {"motd": package("motd", "1"), "clock": package("clock", "1", needs=["motd"]),
           "notes": package("notes", "1"), "old": package("motd", "1"), "big": package("big", "1")}
    new = {"motd": package("motd", "2"), "clock": package("clock", "1", needs=["motd"]),
           "notes-new": package("notes-new", "3", conflicts=["clock"]), "big": package("big", "1"),
           "slow": package("slow", "1"),
           "broken": {"version": "1", "image": {"overlay": ["is-not-there"]}},
           "sick": {"version": "1", "image": {"health": [{"name": "sick", "command": ["false"], "seconds": 0.1}]}}}
    catalogue: dict[str, Any] = {"distros": {"tiny": {
        "description": "Images of a few files", "builder": "images",
        "boards": [{"target": "x86/64", "profile": "generic", "model": "A PC", "names": ["pc"]},
                   {"target": "ath79/generic", "profile": "acme_ap-1", "model": "ACME AP 1", "storage": 600_000}],
        "versions": {
            "1.0": {"image": "base.yaml", "revision": "r1", "packages": old, "defaults": ["motd"]},
            "1.1": {"image": "base.yaml", "revision": "r2", "packages": new, "defaults": ["motd"], "changes": [
                {"package": "notes", "to": "notes-new"}, {"package": "old", "drop": True, "why": "nobody liked it"}]}},
    }}}
    if openwrt:
        shutil.copytree(Path(__file__).parent / "standin", place / "standin", dirs_exist_ok=True)
        (place / "standin/origin").write_text(str(place / "standin"))
        version = {"imagebuilder": "standin", "targets": ["ath79/generic"]}
        catalogue["distros"]["openwrt"] = {"builder": "imagebuilder", "latest": "24.10.0", "versions": {
            "23.05.5": version, "24.10.0": {**version, "changes": [
                {"package": "vim-tiny", "by": {"vim-full": ["luci"], "vim": []}},
                {"package": "kmod-ipv6", "drop": True}]},
            "SNAPSHOT": {**version, "snapshot": True}}}
    file = place / "catalogue.yaml"
    file.write_text(yaml.safe_dump(catalogue, sort_keys=False))
    return file


@dataclass(frozen=True)
class Answered:
    """An answer of the server; ``body`` is its JSON."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.data)


class Server:
    """A server, or a worker, with its directory. What it prints is in ``log``."""

    program = "pdimage"

    def __init__(self, data: Path, settings: Mapping[str, object], verb: str = "serve") -> None:
        self.data = data
        self.log = data.parent / f"{verb}-{time.monotonic_ns()}.log"
        self.url = ""
        self._verb = verb
        self.settings = {"data": str(data), "listen": "127.0.0.1:0", **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._pool = urllib3.PoolManager(retries=False, timeout=30)

    def start(self, *arguments: str) -> "Server":
        """Start it, and wait until it says that it is ready."""
        config = self.data.parent / f"{self.log.name}.toml"
        config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in self.settings.items()))
        with self.log.open("ab") as log:
            before = self.log.stat().st_size
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.program, self._verb, "-v", "-c", str(config), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            said = self.log.read_text(errors="replace")[before:]
            ready = next((line for line in said.splitlines() if line.startswith(("answers on ", "builds as "))), "")
            if ready:
                self.url = ready.split()[-1]
                return self
            assert self._process.poll() is None, said
            time.sleep(0.02)
        raise AssertionError(f"not ready in time: {self.log.read_text()}")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def close(self) -> None:
        """End it as operators do."""
        self._pool.clear()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        stop_agent(self.data / "keys")  # one that was killed has left it

    def trust(self, certificate: Path) -> None:
        """Know the server by a certificate that nobody vouches for."""
        self._pool = urllib3.PoolManager(retries=False, timeout=30, ca_certs=str(certificate))

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
            raw: bytes | None = None) -> Answered:
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        found = self._pool.request(method, path if "://" in path else self.url + path, body=content,
                                   headers=dict(headers or {}))
        return Answered(found.status, found.headers, found.data)

    def get(self, path: str, **headers: str) -> Answered:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any) -> Answered:
        return self.ask("POST", path, body)

    def wait(self, path: str) -> Answered:
        """Poll an address until there is an answer, or the patience is at its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.get(path)
            if found.status != 202:
                return found
            assert time.monotonic() < deadline, f"{found.data!r}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.05)

    def wait_for_survey(self) -> None:
        """Wait until the server knows what the stand-in ImageBuilder has."""
        for version in ("23.05.5", "24.10.0"):
            wait_until(lambda path=f"/api/models?distro=openwrt&version={version}": self.get(path).body)

    def build(self, **wish: object) -> Answered:
        """Ask for an image of the documented API, and wait for it."""
        asked = self.post("/api/build-request", request(**wish))
        if asked.status != 202:
            return asked
        return self.wait(f"/api/build-request/{asked.body['request_hash']}")


def request(**wish: object) -> dict[str, object]:
    """An image of the tiny catalogue."""
    return {"distro": "tiny", "version": "1.1", "target": "x86/64", "board": "generic", "packages": ["motd"], **wish}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items()) + "}"
    return json.dumps(value)
