"""``fussy-update --on-demand``: a router asks, waits, downloads, installs and comes up; what goes wrong on the way."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from fussy import verify
from fussy.keys import device_keyring
from fussy.target import find
from tests.server.conftest import Start
from tests.server.serverprocess import Server, wait_until

WISH = {"distro": "tiny", "version": "1.0", "target": "x86/64", "profile": "generic",
        "packages": ["motd", "notes", "old"]}


class Router:
    """A router with an empty target that knows the key of SERVER and what it wants."""

    def __init__(self, place: Path, server: Server, url: str = "", **wish: object) -> None:
        self.place = place / "router"
        self.target = self.place / "opt"
        self.target.mkdir(parents=True)
        device_keyring(self.place / "keys", [server.get("/signing-key.asc").data.decode()], "router")
        table = {"server": url or server.url, **WISH, **wish}
        self.settings = self.place / "update.toml"
        self.settings.write_text("patience = 2.0\ndeadline = 120.0\nrandom_delay = 0.0\n[on_demand]\n" + "".join(
            f"{name} = {json.dumps(value)}\n" for name, value in table.items()))

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "fussy", "update", "--on-demand", "-v", "-t", str(self.target), "-s",
             str(self.settings), "-k", str(self.place / "keys"), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def update(self, *arguments: str, fails: int = 0) -> str:
        """Run the updater; return the last line it says."""
        with self.popen(*arguments) as process:
            said, _ = process.communicate(timeout=120)
        assert process.returncode == fails, said
        return said.splitlines()[-1]

    def files(self) -> dict[str, str]:
        """Return the content of the release in use, after checking that it is whole."""
        release = find(self.target).current_release()
        assert release is not None
        assert verify.damage(release) == []
        return {path.name: path.read_text()[:20] for path in sorted(release.glob("share/*"))}


def test_a_router_asks_waits_downloads_installs_and_comes_up(start: Start, tmp_path: Path) -> None:
    server = start()
    router = Router(tmp_path, server)
    assert "can be built: motd, notes-new" in router.update("--check", fails=10)
    said = router.update()
    assert "updated to tiny-1.1-" in said
    assert router.files() == {"motd": "motd", "notes-new": "notes-new"}
    assert router.update().endswith("nothing new")

    said = router.update("--add", "clock", fails=22)
    assert said.endswith("refuses: Impossible package selection: clock conflicts with notes-new")
    assert "updated from 1.1 to tiny-1.1-" in router.update("--add", "clock", "--remove", "notes-new")
    assert router.files() == {"clock": "clock", "motd": "motd"}
    assert router.update("--remove", "vim", fails=40).endswith(
        "cannot leave out vim: this release was not asked for with it; it was with clock, motd")


def test_newer_packages_of_the_same_version_are_an_update(start: Start, tmp_path: Path) -> None:
    server = start()
    router = Router(tmp_path, server)
    router.update()
    catalogue = tmp_path / "catalogue/catalogue.yaml"
    content = yaml.safe_load(catalogue.read_text())
    content["distros"]["tiny"]["versions"]["1.1"]["packages"]["motd"]["version"] = "3"
    (tmp_path / "catalogue/motd/share/motd").write_text("a new day")
    catalogue.write_text(yaml.safe_dump(content, sort_keys=False))
    wait_until(lambda: server.get("/json/v1/releases/1.1/targets/x86/64/index.json").body["packages"]["motd"] == "3")
    assert "updated from 1.1" in router.update()
    assert router.files() == {"motd": "a new day", "notes-new": "notes-new"}
    assert router.update().endswith("nothing new")


def test_a_release_that_does_not_come_up_is_taken_back_and_not_asked_for_again(start: Start, tmp_path: Path) -> None:
    router = Router(tmp_path, start())
    router.update()
    assert "is in use again" in router.update("--add", "sick", fails=3)
    assert router.files() == {"motd": "motd", "notes-new": "notes-new"}
    assert "failed on this device before" in router.update("--add", "sick", fails=26)


def test_a_server_that_is_killed_while_the_router_waits(start: Start, tmp_path: Path) -> None:
    server = start(lease_seconds=2)
    router = Router(tmp_path, server, version="1.1", packages=["motd", "slow"])
    with router.popen() as process:
        wait_until(lambda: server.get("/api/v1/stats/summary").body.get("building") == 1)
        server.kill()
        server.start("--listen", server.url.removeprefix("http://"))
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "can't be connected to" in said or "being built" in said
    assert router.files() == {"motd": "motd", "slow": "slow"}


def test_a_download_is_resumed(start: Start, tmp_path: Path) -> None:
    server = start()
    router = Router(tmp_path, server, packages=["big"])
    answer = server.build(packages=["big"]).body
    file = server.data / "store" / answer["request_hash"] / answer["sysupgrade"].rpartition("/")[2]
    whole = file.read_bytes()
    assert hashlib.sha256(whole).hexdigest() == answer["sha256"]
    half = len(whole) // 2
    part = router.target / ".fussy/update/downloads" / f"{answer['sha256']}.part"
    part.parent.mkdir(parents=True, mode=0o700)
    part.write_bytes(whole[:half])
    file.write_bytes(bytes(half) + whole[half:])  # what the router has, the server can't give any more
    assert "updated to tiny-1.1-" in router.update()
    assert router.files() == {"big": "big" * 6 + "bi"}


@contextmanager
def answering(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """Serve fixed answers by path, to GET and POST; give the address."""
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.do_GET()

        def do_GET(self) -> None:
            status, content = answers[self.path]
            data = json.dumps(content).encode() if status != 204 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_lies_gets_nothing_installed(start: Start, tmp_path: Path) -> None:
    server = start()
    router = Router(tmp_path, server)
    router.update()
    before = router.files()
    other = server.build(packages=["clock"]).body
    news = {"version": "1.1", "packages": ["motd"], "upgrades": {}}
    wished = {"distro": "tiny", "profile": "generic", "target": "x86/64"}
    with answering({"/api/upgrade-check": (200, news),
                    "/api/upgrade-request": (200, {**other, "request_hash": "0" * 64})}) as url:
        lied = Router(tmp_path / "a", server, url, **wished)
        assert "it has built another request than" in lied.update(fails=51)
    # the digest that was asked for, but the image of another request: signed by the right key all the same
    from fussy import ondemand
    from fussy.ondemand import Request
    digest = ondemand.digest(Request("tiny", "1.1", "x86/64", "generic", ("motd",), diff_packages=True))
    link = f"{server.url}/store/{other['request_hash']}/{other['sysupgrade'].rpartition('/')[2]}"
    with answering({"/api/upgrade-check": (200, news), "/api/upgrade-request": (
            200, {**other, "request_hash": digest, "sysupgrade": link})}) as url:
        lied = Router(tmp_path / "b", server, url)
        assert "it was made for the request " + other["request_hash"][:12] in lied.update(fails=22)
        assert find(lied.target).current_release() is None
    with answering({"/api/upgrade-check": (200, {**news, "version": "0.9"})}) as url:
        router.settings.write_text(router.settings.read_text().replace(server.url, url))
        assert "(rollback attack)" in router.update(fails=51)
    assert router.files() == before
