"""A router out of the factory gets its first firmware, and newer ones, in every way there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from pdimage.lab.machine import VM

from .conftest import Factory

pytestmark = pytest.mark.lab

FUSSY = "/usr/local/bin/fussy"


def status(router: VM) -> Any:
    return json.loads(router.run(f"{FUSSY} status --json"))


def motd(version: str) -> dict[str, str]:
    return {"etc/motd": f"version {version}\n"}


def bring(router: VM, bundle: Path) -> str:
    """Copy a bundle onto a router; return its path there."""
    router.copy_to(bundle, "/tmp/")
    return f"/tmp/{bundle.name}"


def test_first_installation_upgrade_downgrade_and_failsafe_by_file(router: VM, factory: Factory) -> None:
    first, second = (bring(router, factory.bundle("router", version, motd(version))) for version in "12")
    router.run(["/opt/fussy/bin/fussy-install", first])
    assert "current   router-1 (version 1)" in router.run(f"{FUSSY} status")
    assert router.run("cat /etc/motd") == "version 1\n"
    router.run(f"{FUSSY} failsafe")

    router.run([FUSSY, "install", second])
    router.reboot()
    assert router.run("cat /etc/motd") == "version 2\n"
    assert router.run(f"{FUSSY} verify") == "/opt/firmware/router-2: good\n"

    router.run([FUSSY, "install", first])
    assert router.run("cat /etc/motd") == "version 1\n"
    assert status(router)["current"]["version"] == "1"
