"""The documented walk, with real parts: from ``paradrop register`` to a chute installed through the server.

The router is a daemon with a Docker engine of its own in a network namespace behind a gateway that masquerades; the
server speaks HTTPS with a certificate that nobody vouches for; who uses the command sits beside the server, where no
way leads to the router but its own link.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paradrop.engine import Engine, running
from tests.paradrop.process import PORT, Daemon
from tests.paradrop.process import running as running_daemon
from tests.registry.certificates import self_signed
from tests.registry.conftest import PASSWORD
from tests.registry.nets import SERVER, UPLINK, Nets, behind_nat, inside
from tests.server.serverprocess import Server

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CHUTES = Path(__file__).resolve().parents[2] / "pdimage/chutes"
HERE = ("localhost", str(PORT))


@dataclass
class Scene:
    """All who take part."""

    nets: Nets
    server: Server
    router: Daemon
    place: Path

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.place), "PARADROP_CONFIG_DIR": str(self.place / "config"),
                "PARADROP_PASSWORD": PASSWORD, "PYTHONUNBUFFERED": "1", "TZ": "UTC"}

    def argv(self, where: str, *words: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{where}", sys.executable, "-m", "paradrop.tools", *words]

    def paradrop(self, *words: str, where: str = "", typed: str = "", code: int = 0, cwd: Path | None = None) -> str:
        """Run the command beside the server, or elsewhere; return all that it said."""
        done = subprocess.run(self.argv(where or self.nets.server, *words), input=typed, text=True, cwd=cwd,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
                              env={**self.environment(), "RUNTIME_HOME_DIR": str(self.router.home / "run")})
        assert done.returncode == code, done.stdout + self.router.log()[-3000:]
        assert "Traceback" not in done.stdout
        return done.stdout

    def until(self, line: str) -> None:
        """Wait until ``paradrop list`` has a line that begins so."""
        await_that(lambda: line in self.paradrop("list"))

    def identity(self) -> dict[str, object]:
        """What the router says of itself, to its own root."""
        token = (self.router.home / "run/api/token").read_text()
        done = self.nets.run(self.nets.router, "curl", "-s", "-H", f"Authorization: Bearer {token}",
                             f"http://127.0.0.1:{PORT}/api/v1/identity")
        found: dict[str, object] = json.loads(done)
        return found


def await_that(there: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running() as found:
        yield found


@pytest.fixture
def scene(engine: Engine, tmp_path: Path) -> Iterator[Scene]:
    """A server that joe knows nothing of yet, and a router that nobody has."""
    with behind_nat(engine) as nets:
        home = tmp_path / "router"
        home.mkdir()
        server = Server(tmp_path / "data", {"name_length": 3, "link_seconds": 2.0, "listen": f"{SERVER}:8443",
                                            **self_signed(tmp_path / "tls", f"IP:{SERVER}")})
        router = Daemon(home, engine, ("-v",), settings={"FIRMWARE_TARGET": f"{home}/firmware",
                                                "FIRMWARE_KEYRING": f"{home}/fussy/keys",
                                                "FIRMWARE_SETTINGS": f"{home}/fussy/update.toml"})
        with running_daemon(router):
            with inside(nets.server):
                server.start("--no-worker")
            try:
                yield Scene(nets, server, router, tmp_path)
            finally:
                server.close()
                engine.clear()


def test_the_documented_walk(scene: Scene) -> None:
    assert scene.paradrop("list", code=5) == "paradrop list: You must login first. (paradrop login)\n"
    said = scene.paradrop("register", "-u", "joe", "-s", scene.server.url, typed="y\n")
    assert "Is it the one" in said and "Logged in as joe (user) until 20" in said
    scene.paradrop("logout")
    assert scene.paradrop("logs", "aardvark", code=5) == "paradrop logs: You must login first. (paradrop login)\n"
    assert "Logged in as joe" in scene.paradrop("login", "-u", "joe")
    scene.paradrop("router-create", "aardvark")
    assert scene.paradrop("list") == "routers\n  pd.joe.aardvark  not provisioned\n"
    assert scene.paradrop("chute", "list", "-r", "aardvark", code=1) == \
        "paradrop chute list: pd.joe.aardvark is asleep: it has no link to this server\n"

    said = scene.paradrop("router-provision", "aardvark", *HERE, where=scene.nets.router)
    assert said.splitlines()[0] == f"The router at localhost port {PORT} is pd.joe.aardvark"
    scene.until("routers\n  pd.joe.aardvark  awake\n")
    again = scene.paradrop("router-provision", "aardvark", *HERE, where=scene.nets.router, code=1)
    assert again.endswith("this router is pd.joe.aardvark already; say --again to have it be another one from now on\n")
    assert "there is no router 'badger'" in scene.paradrop("router-provision", "badger", *HERE, code=1)

    # nothing listens where the internet could reach it, and no way leads there
    assert {address for address in scene.nets.listening(scene.nets.router)
            if not address.startswith(("127.", "[::1]"))} == set()
    with pytest.raises(subprocess.CalledProcessError):
        scene.nets.run(scene.nets.gateway, "curl", "-s", "--max-time", "5", f"http://{UPLINK}:{PORT}/v1/test")

    follower = subprocess.Popen(scene.argv(scene.nets.server, "logs", "aardvark"), env=scene.environment(), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert follower.stdout is not None
    lines = iter(follower.stdout)
    assert any("this router is now pd.joe.aardvark" in line for line in lines)

    output = scene.paradrop("chute", "install", "-r", "aardvark", "./config.yaml", cwd=CHUTES / "hello-world")
    assert output.splitlines()[0] == "Installing chute..."
    assert any(line.startswith("Step 1/") for line in output.splitlines())
    assert output.splitlines()[-1] == "Chute hello-world create success"
    assert scene.router.await_page("http://127.0.0.1:9000/") == "Hello World from Paradrop!\n"
    assert any("create hello-world: Chute hello-world create success" in line for line in lines), "the log is followed"
    follower.send_signal(signal.SIGINT)
    assert follower.wait(20) == 0
    assert "websockets" not in scene.router.log(), "each line would make another one about itself"

    through = scene.paradrop("chute", "list", "--router", "pd.joe.aardvark")
    assert through == scene.paradrop("chute", "list", *HERE, where=scene.nets.router)
    assert through.splitlines()[1].split() == ["hello-world", "running", "running", "-", "-"]
    (change,) = json.loads(scene.paradrop("router", "changes", "-r", "aardvark", "--json"))
    assert (change["kind"], change["user"], change["success"]) == ("create", "joe@server", True)
    assert scene.paradrop("chute", "stop", "-r", "aardvark", "hello-world").endswith("hello-world stop success\n")

    # packets are lost, nobody is told: both ends find out, and find each other again; the router goes on meanwhile
    with scene.nets.cut():
        scene.until("  pd.joe.aardvark  asleep since ")
        await_that(lambda: scene.identity()["state"] == "connecting")
        assert "start success" in scene.paradrop("chute", "start", *HERE, "hello-world", where=scene.nets.router)
    scene.until("  pd.joe.aardvark  awake\n")
    assert "running" in scene.paradrop("chute", "list", "-r", "aardvark")
    assert "Traceback" not in scene.router.log() and "Traceback" not in scene.server.log.read_text()


def test_the_server_is_killed_in_mid_provisioning(scene: Scene) -> None:
    """The router's request is under way: nothing is kept of it; the same one makes it good when the server is back."""
    scene.paradrop("register", "-u", "joe", "-s", scene.server.url, typed="y\n")
    scene.paradrop("router-create", "aardvark")
    known = json.loads((scene.place / "config/server.json").read_text())
    curl = ("curl", "-s", "--cacert", str(scene.place / "tls/certificate.pem"), "-X", "POST")
    order = json.loads(scene.nets.run(scene.nets.server, *curl, "-H", f"Authorization: Bearer {known['token']}",
                                      f"{scene.server.url}/registry/v1/routers/aardvark/provision"))
    body = json.dumps({name: order[name] for name in ("server", "secret", "server_certificate")})
    provision = ("curl", "-s", "-H", "Content-Type: application/json", "-d", body,
                 f"http://127.0.0.1:{PORT}/api/v1/provision")
    answers: list[dict[str, object]] = []
    os.kill(scene.server.pid, signal.SIGSTOP)
    asking = threading.Thread(target=lambda: answers.append(json.loads(scene.nets.run(scene.nets.router, *provision))))
    asking.start()
    await_that(lambda: scene.nets.run(scene.nets.router, "ss", "-Hnt", "dst", SERVER))
    scene.server.kill()
    asking.join(60)
    assert str(answers[0]["detail"]).startswith(f"cannot provision: {SERVER} ") and answers[0]["status"] == 409
    assert (scene.identity()["pdid"], scene.identity()["state"]) == (None, "off")
    assert not (scene.router.home / "fussy").exists()
    with inside(scene.nets.server):
        scene.server.start("--no-worker")
    assert scene.paradrop("list") == "routers\n  pd.joe.aardvark  not provisioned\n"
    assert json.loads(scene.nets.run(scene.nets.router, *provision))["pdid"] == "pd.joe.aardvark"
    scene.until("  pd.joe.aardvark  awake\n")
    assert scene.router.memory() < 60
