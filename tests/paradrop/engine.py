"""A Docker engine of the tests' own: Debian's dockerd in a network namespace, with its own data, state and socket."""

import contextlib
import ctypes
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest

from paradrop.backend.fc import chutestorage, configurer, journal, reconcile, updateObject
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.main import ConfigService
from paradrop.lib import settings
from paradrop.lib.config import devices
from paradrop.lib.utils import dockerclient

CLONE_NEWNET = 0x40000000
BASE = "busybox:latest"
ROOTS: list[Path] = []  # of all engines that were started
APPLETS = ("sh", "cat", "echo", "env", "false", "httpd", "ifconfig", "ip", "ls", "mkdir", "nc", "ping", "sleep",
           "touch", "true", "udhcpc", "wget")


@dataclass(frozen=True)
class Engine:
    """A running engine. ``root`` is its directory, ``netns`` its network namespace, ``pid`` the process of dockerd."""

    root: Path
    netns: str
    pid: int

    @property
    def url(self) -> str:
        return f"unix://{self.root}/docker.sock"

    @property
    def client(self) -> Any:
        return docker.APIClient(self.url, version="auto", timeout=60)

    def run(self, *argv: str) -> str:
        """Run a command in the engine's network namespace."""
        return subprocess.run(["nsenter", f"--net=/run/netns/{self.netns}", *argv], check=True, capture_output=True,
                              text=True, timeout=60).stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread, and what it starts, into the engine's network namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.netns}", os.O_RDONLY)
        try:
            _setns(there)
            yield
        finally:
            _setns(home)
            os.close(there)
            os.close(home)

    def clear(self) -> None:
        """Remove all containers, networks of chutes, and images but the base."""
        client = self.client
        for container in client.containers(all=True):
            client.remove_container(container["Id"], force=True, v=True)
        for network in client.networks(filters={"label": "io.paradrop.chute"}):
            client.remove_network(network["Id"])
        base = client.inspect_image(BASE)["Id"]
        for _ in range(10):
            images = [image["Id"] for image in client.images() if image["Id"] != base]
            if not images:
                return
            for image in images:
                with contextlib.suppress(docker.errors.APIError):
                    client.remove_image(image, force=True)


def _setns(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot change the network namespace")


def missing() -> str | None:
    """Return why no engine can run here, None if it can be tried."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    for program in ("dockerd", "containerd", "runc", "busybox", "ip", "nsenter", "iptables"):
        if shutil.which(program) is None:
            return f"{program} is missing (apt packages docker.io busybox-static iproute2 iptables util-linux)"
    return None


def base_image() -> bytes:
    """Return a root file system made of the static busybox, as tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "www", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(os.path.realpath(shutil.which("busybox") or ""), "bin/busybox")
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return stream.getvalue()


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """Start an engine, and remove everything of it afterwards. Skips where it cannot start."""
    if reason := missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="pd-engine-"))  # short: paths of sockets end at 107 characters
    ROOTS.append(root)
    netns = root.name
    subprocess.run(["ip", "netns", "add", netns], check=True, timeout=20)
    process = None
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True, timeout=20)
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "nsenter", f"--net=/run/netns/{netns}", "dockerd",
                 "--data-root", str(root / "data"), "--exec-root", str(root / "exec"), "--pidfile", str(root / "pid"),
                 "--host", f"unix://{root}/docker.sock", "--bip", "172.31.7.1/24", "--restart=false"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        engine = Engine(root, netns, process.pid)
        _await(engine, process)
        engine.client.import_image_from_data(base_image(), repository="busybox", tag="latest")
        yield engine
        engine.clear()
    finally:
        if process is not None:
            _end(process)
        _unmount(root)
        subprocess.run(["ip", "netns", "delete", netns], check=False, timeout=20)
        shutil.rmtree(root, ignore_errors=True)


def _await(engine: Engine, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            engine.client.ping()
            return
        except (docker.errors.DockerException, OSError):
            time.sleep(0.1)
    last = (engine.root / "log").read_text(errors="replace").splitlines()[-1:]
    pytest.skip(f"dockerd does not run here: {last}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _unmount(root: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, timeout=20)


@pytest.fixture(scope="session")
def engine_of_session() -> Iterator[Engine]:
    """The engine that all tests share; it is started by the first that asks."""
    with running() as engine:
        yield engine


@pytest.fixture
def engine(engine_of_session: Engine, home: Path) -> Iterator[Engine]:
    """The engine, empty, with the test in its network namespace and the settings leading to it."""
    values = {"DOCKER_HOST": engine_of_session.url, "DOCKER_STOP_TIMEOUT": 0, "CHUTE_SETTLE_TIME": 0.3,
              "CHUTE_IMAGE_DIR": str(home / "images"), "DOCKER_CONFIG_FILE": str(home / "docker")}
    for name, value in values.items():
        settings.addSetting(name, value)
    with engine_of_session.inside():
        yield engine_of_session
    engine_of_session.clear()


@dataclass
class Router:
    """A router with its engine, pdconfd and chute store, all real; ``wan0`` leads out, ``lan0`` is for chutes."""

    engine: Engine
    home: Path
    progress: list[str] = field(default_factory=list)

    @property
    def request(self) -> "Router":
        return self

    def write(self, text: str) -> None:
        """Take progress, as the request's package that an update gets."""
        self.progress.append(text)

    def update(self, kind: str, **values: Any) -> dict[str, Any]:
        """Carry out an update of a chute and return its result."""
        results: list[dict[str, Any]] = []
        configurer.perform({"updateClass": "CHUTE", "updateType": kind, "tok": 1, "pkg": self,
                            "func": lambda update: results.append(update.result), **values})
        assert len(results) == 1, "an update is complete once"
        return results[0]

    def do(self, kind: str, **values: Any) -> None:
        """Carry out an update that must succeed."""
        result = self.update(kind, **values)
        assert result["success"], result["message"]

    def restart(self) -> None:
        """Be the runtime after it was killed: everything that was in memory is gone."""
        chutestorage.ChuteStorage.chuteList = {}
        dockerclient._clients.clear()
        ConfigService.configManager = ConfigManager(settings.PDCONFD_WRITE_DIR)
        ConfigService.configManager.loadConfig()
        storage = chutestorage.ChuteStorage()
        assert reconcile.reconcile(storage)
        for chute in storage.getChuteList():
            if chute.state == "running":
                self.do("restart", name=chute.name, boot=True)

    def store(self) -> dict[str, Any]:
        """The chutes as they are stored, by name."""
        stored: dict[str, Any] = json.loads(msgspec.json.encode(
            chutestorage.ChuteStorage().exportAttr(chutestorage.ChuteStorage.chuteList)))
        return stored

    def state(self) -> dict[str, Any]:
        """All that an update may change, less what time changes by itself."""
        client = self.engine.client
        containers = {item["Names"][0]: (item["Id"], item["State"], item["Image"])
                      for item in client.containers(all=True)}
        return {
            "containers": containers,
            "images": sorted(image["Id"] for image in client.images(all=True)),
            "inside": {name: self.addresses(number) for name, (number, state, _) in containers.items()
                       if state == "running"},
            "links": sorted((link["ifname"].partition("@")[0], link.get("master"),
                             [address["local"] for address in link["addr_info"] if address["scope"] == "global"])
                            for link in json.loads(self.engine.run("ip", "-json", "address"))
                            if not link["ifname"].startswith("veth")),
            "rules": [re.sub(r"172\.31\.\d+\.\d+", "ADDRESS", line)
                      for table in ("filter", "nat")
                      for line in self.engine.run("iptables", "-t", table, "-S").splitlines()],
            "files": {path.name: text for path in Path(settings.UCI_CONFIG_DIR).glob("[!.]*")
                      if (text := path.read_text())},
            "store": self.store(),
            "disk": Path(settings.FC_CHUTESTORAGE_SAVE_PATH).read_bytes()
            if chutestorage.ChuteStorage.chuteList else None,
            "directories": sorted(str(path.relative_to(self.home)) for parent in ("data", "system")
                                  for path in (self.home / "lib" / parent).glob("*")),
            "networks": sorted(network["Name"] for network in client.networks()),
            "journal": journal.unfinished(),
        }

    def addresses(self, container: str) -> list[str]:
        """The interfaces and addresses inside a container, but for those that Docker gives; none if it does not run."""
        pid = self.engine.client.inspect_container(container)["State"]["Pid"]
        if not pid:
            return []
        shown = self.engine.run("nsenter", "-t", str(pid), "-n", "ip", "-json", "address")
        return [f"{link['ifname']} {address['local']}/{address['prefixlen']}"
                for link in json.loads(shown) if link["ifname"] not in ("lo", "eth0")
                for address in link["addr_info"] if address["family"] == "inet"]


@pytest.fixture
def router(engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router without chutes."""
    engine.clear()  # other tests use the engine of the session without a router
    for number, name in enumerate(("wan0", "lan0")):
        engine.run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", f"{name}peer")
        engine.run("ip", "link", "set", "dev", name, "up")
        engine.run("ip", "link", "set", "dev", f"{name}peer", "up")
        (home / "sys" / name).mkdir(parents=True)
        (home / "sys" / name / "ifindex").write_text(str(number + 2))
        (home / "sys" / name / "address").write_text(f"02:00:00:00:00:0{number}")
    engine.run("ip", "address", "add", "192.0.2.1/24", "dev", "wan0")
    engine.run("ip", "route", "add", "default", "via", "192.0.2.254")
    monkeypatch.setattr(devices, "SYS_NET", home / "sys")  # the kernel's own shows another namespace
    chutestorage.ChuteStorage.chuteList = {}
    manager = ConfigManager(settings.PDCONFD_WRITE_DIR)
    monkeypatch.setattr(ConfigService, "configManager", manager)
    boot = updateObject.UpdateObject({"updateClass": "ROUTER", "name": settings.RESERVED_CHUTE})
    devices.getSystemDevices(boot)
    devices.setSystemDevices(boot)
    manager.loadConfig()
    yield Router(engine, home)
    engine.clear()
    assert ConfigService.configManager is not None
    ConfigService.configManager.unload()
    for name in ("wan0", "lan0"):
        engine.run("ip", "link", "delete", "dev", name)
    chutestorage.ChuteStorage.chuteList = {}
