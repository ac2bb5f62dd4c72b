"""A router with a chute loses power while its firmware is upgraded: when it has booted the chute runs again."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pdimage.lab import costs
from pdimage.lab.machine import VM
from pdimage.lab.nbd import Server
from pdimage.lab.virt import _SystemdContainerService
from pdimage.lab.volatile import Disk
from pdimage.lab.writelog import Policy
from tests.paradrop.engine import Engine
from tests.pdimage.workshop import python_packages

from .conftest import Factory
from .test_upgrades import FUSSY, bring
from .test_wifi import PATIENCE, ROOT, builder

pytestmark = [pytest.mark.lab(flavour="router", memory=1024), pytest.mark.docker, pytest.mark.slow]
__all__ = ["builder"]

CHUTE = "hello-world"


class DataDisk:
    """The disk that a router has at /opt: a file in PLACE, behind an NBD server whose power can be cut."""

    def __init__(self, place: Path, content: Path) -> None:
        self.image, self.socket = place / "disk", place / "nbd"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", content, self.image, "1G"], check=True, timeout=120)
        self.plug("none", 0)

    def plug(self, policy: Policy, seed: int) -> None:
        """Give it power (again)."""
        self.disk = Disk(self.image, policy=policy, seed=seed)
        self._plugged = ExitStack()
        self._plugged.callback(self.disk.close)
        self._plugged.enter_context(Server(self.disk, self.socket))

    def unplug(self) -> None:
        """Cut its power, if it has any."""
        self.disk.cut()
        self._plugged.close()


@pytest.fixture(scope="module")
def data_disk(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataDisk]:
    made = DataDisk(tmp_path_factory.mktemp("nbd"), factory.place / "opt")
    yield made
    made.unplug()
    shutil.rmtree(made.image.parent)


@pytest.fixture(scope="module")
def lab_configure(factory: Factory, data_disk: DataDisk) -> Callable[[dict[str, Any]], object]:
    def configure(conf: dict[str, Any]) -> None:
        factory.equip(conf)
        for domain in conf["domains"].values():
            domain["disks"][1] = {"type": "nbd", "name": "opt", "url": f"nbd:unix:{data_disk.socket}", "mount": "/opt"}

    return configure


def await_chute(router: VM) -> None:
    """Wait until the chute's container runs and shows its page."""
    router.run("for i in $(seq 600); do curl --silent --max-time 20 http://127.0.0.1:9000/ | grep -q 'Hello World' && "
               f"exit; sleep 1; done; docker ps -a; {FUSSY} status; journalctl -n 40 -u paradrop; exit 1")
    names = router.run("docker ps --format '{{.Names}}'").split()
    assert [name for name in names if CHUTE in name], names
    service = _SystemdContainerService(router, names[0])
    assert (service.is_supported(router), service.alive()) == (True, True)


def test_the_chute_runs_again_after_every_power_cut(router: VM, data_disk: DataDisk, factory: Factory,
                                                    builder: Engine) -> None:
    packages = python_packages(factory.place / "runtime-packages")
    chute = {"path": str(ROOT / "pdimage/chutes" / CHUTE)}
    bundles = {version: bring(router, factory.bundle(
        "router", version, engine=builder.url, platform={"paradrop": True, "fussy": True}, overlay=[str(packages)],
        settings=PATIENCE, limits={"post_install": 1200}, chutes=[chute])) for version in "12"}
    before = data_disk.disk.writes
    router.run(["/opt/fussy/bin/fussy-install", bundles["1"]], seconds=1800)
    await_chute(router)
    router.run("sync")
    writes = data_disk.disk.writes - before

    policies: tuple[Policy, ...] = ("subset", "torn")
    for seed, policy in enumerate(policies, 1):
        data_disk.disk.policy, data_disk.disk.seed = policy, seed
        data_disk.disk.cut_at = data_disk.disk.writes + random.Random(seed).randint(1, writes)
        version = json.loads(router.run(f"{FUSSY} status --json"))["current"]["version"]
        other = {"1": "2", "2": "1"}[version]
        code = router.ssh([FUSSY, "install", bundles[other]], show_output=False, seconds=1800).code
        cut = "after the end" if data_disk.disk.has_power else f"at write {data_disk.disk.cut_at}"
        router.power_off()
        data_disk.unplug()
        data_disk.plug("none", 0)

        begun = time.monotonic()
        router.start()
        router.wait_for_ssh()
        await_chute(router)
        costs.note("boot after a power cut, until a chute shows its page", time.monotonic() - begun)
        current = json.loads(router.run(f"{FUSSY} status --json"))["current"]
        print(f"seed {seed}, {policy}: from {version} to {other}, cut {cut}: {current['version']}")
        assert current["version"] in ((other,) if code == 0 else (version, other))
        assert router.run(f"{FUSSY} verify") == f"/opt/firmware/{current['name']}: good\n"
