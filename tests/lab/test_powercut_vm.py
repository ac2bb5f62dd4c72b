"""A virtual router loses power in the middle of installations, again and again, and boots into a complete release."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pdimage.lab.machine import VM
from pdimage.lab.nbd import Server
from pdimage.lab.plugin import START
from pdimage.lab.volatile import Disk
from pdimage.lab.writelog import POLICIES, Policy

from .conftest import Factory

pytestmark = [pytest.mark.lab, pytest.mark.slow]

FUSSY = "/opt/fussy/bin/fussy"
# The boot of a router, as far as its data disk takes part: the golden router has not touched it.
BOOT = f"""blockdev --flushbufs /dev/vdb
e2fsck -p /dev/vdb >/dev/null || [ $? -le 2 ] || exit 1
mount /dev/vdb /opt && {FUSSY} recover 2>/dev/null"""


class DataDisk:
    """The data disk of a router: an NBD server whose power can be cut, with releases to install, in PLACE."""

    def __init__(self, place: Path, factory: Factory) -> None:
        self.image, self.socket = place / "disk", place / "nbd"
        content = place / "content"
        shutil.copytree(factory.place / "opt", content, symlinks=True)
        (content / "bundles").mkdir()
        fails = factory.place / "fails"
        fails.write_text("#!/bin/sh\n[ \"$2\" = True ]\n")
        fails.chmod(0o755)
        for version, hooks in (("1", {}), ("2", {}), ("3", {"hooks": {"post_install": str(fails)}})):
            bundle = factory.bundle("router", version, {"etc/motd": f"version {version}\n"}, **hooks)
            shutil.copy(bundle, content / "bundles" / version)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", content, self.image, "600M"], check=True, timeout=120)
        shutil.rmtree(content)
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
    made = DataDisk(tmp_path_factory.mktemp("nbd"), factory)
    yield made
    made.unplug()


@pytest.fixture(scope="module")
def lab_configure(factory: Factory, data_disk: DataDisk) -> Callable[[dict[str, Any]], object]:
    def configure(conf: dict[str, Any]) -> None:
        factory.equip(conf)
        for domain in conf["domains"].values():
            domain["disks"][1] = {"type": "nbd", "name": "opt", "url": f"nbd:unix:{data_disk.socket}"}

    return configure


def boot(router: VM) -> str:
    """Bring the router and its data disk up; return the version in use ("" for none), which is verified."""
    router.revert_snapshot(START)
    router.run(BOOT)
    current = json.loads(router.run(f"{FUSSY} status --json"))["current"]
    if current is None:
        return ""
    assert router.run(f"{FUSSY} verify") == f"/opt/firmware/{current['name']}: good\n"
    return str(current["version"])


def cut_again_and_again(router: VM, data_disk: DataDisk, cuts: int, first_seed: int) -> None:
    """Cut the power CUTS times. What a seed draws is the command, the write and the policy."""
    boot(router)
    router.run([FUSSY, "install", "/opt/bundles/1"])
    writes, current, allowed = data_disk.disk.writes, "1", {"1"}
    router.run("sync")
    for seed in range(first_seed, first_seed + cuts):
        router.power_off()
        data_disk.unplug()
        chance = random.Random(seed)
        data_disk.plug(chance.choice(POLICIES), seed)
        current = boot(router)
        assert current in allowed, f"seed {seed - 1}"
        version = chance.choice([{"1": "2", "2": "1"}[current], "3"])
        expected = 3 if version == "3" else 0
        data_disk.disk.cut_at = data_disk.disk.writes + chance.randint(1, writes)
        ended = router.ssh([FUSSY, "install", f"/opt/bundles/{version}"], show_output=False, seconds=200).code
        cut = "after the end" if ended == expected else f"at write {data_disk.disk.writes}"
        print(f"seed {seed}: from {current} to {version}, {data_disk.disk.policy}, cut {cut}")
        wanted = current if version == "3" else version
        allowed = {wanted} if ended == expected else {current, wanted}
    router.power_off()
    data_disk.unplug()
    data_disk.plug("none", 0)
    assert boot(router) in allowed


def test_the_router_boots_into_a_complete_release(router: VM, data_disk: DataDisk) -> None:
    cut_again_and_again(router, data_disk, 10, first_seed=1)
