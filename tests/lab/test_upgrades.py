"""A router out of the factory gets its first firmware, and newer ones, in every way there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from pdimage.lab.machine import VM

from .conftest import Factory

pytestmark = pytest.mark.lab

FUSSY = "/usr/local/bin/fussy"
UPDATE = "/opt/fussy/bin/fussy update"


def status(router: VM) -> Any:
    return json.loads(router.run(f"{FUSSY} status --json"))


def motd(version: str) -> dict[str, str]:
    return {"etc/motd": f"version {version}\n"}


def bring(router: VM, bundle: Path) -> str:
    """Copy a bundle onto a router; return its path there."""
    router.copy_to(bundle, "/var/tmp/")
    return f"/var/tmp/{bundle.name}"


def test_first_installation_upgrade_downgrade_and_failsafe_by_file(router: VM, factory: Factory) -> None:
    first, second = (bring(router, factory.bundle("router", version, motd(version))) for version in "12")
    router.run(["/opt/fussy/bin/fussy-install", first])
    assert "current   router-1 (version 1)" in router.run(f"{FUSSY} status")
    assert router.run("cat /etc/motd") == "version 1\n"
    assert router.run(f"{FUSSY} failsafe") == "/opt/firmware/failsafe\n"

    router.run([FUSSY, "install", second])
    router.reboot()
    assert router.run("cat /etc/motd") == "version 2\n"
    assert router.run(f"{FUSSY} verify") == "/opt/firmware/router-2: good\n"

    router.run([FUSSY, "install", first])
    assert router.run("cat /etc/motd") == "version 1\n"
    assert status(router)["previous"]["version"] == "2"

    # on the way forward the hook of the new release fails, on the way back that of the one before: the failsafe is left
    router.run("cd -P /opt/firmware/current && rm .post-install && install -m 755 /bin/false .post-install")
    hook = factory.place / "fail"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    third = factory.bundle("router", "3", motd("3"), hooks={"post_install": str(hook)})
    assert router.ssh([FUSSY, "install", bring(router, third)], show_output=False).code == 3
    assert router.run("readlink /opt/firmware/current") == "failsafe\n"
    router.reboot()
    assert router.run("cat /etc/motd") == "version 1\n"


def test_the_channel_brings_the_first_firmware_and_deltas_afterwards(router: VM, factory: Factory) -> None:
    factory.publish("router", "1", motd("1"))
    assert "updated to router-1 (version 1) by a full bundle" in router.run(UPDATE)
    factory.publish("router", "2", motd("2"))

    assert "updated from 1 to router-2 (version 2) by a delta bundle" in router.run(UPDATE)

    router.reboot()
    assert router.run("cat /etc/motd") == "version 2\n"
    assert router.run(f"{FUSSY} verify") == "/opt/firmware/router-2: good\n"


@pytest.mark.slow
def test_the_signing_key_is_changed(router: VM, factory: Factory) -> None:
    new = factory.signing_key("new@example.org")
    both = factory.next_keyring(factory.signer, new)

    router.run(["/opt/fussy/bin/fussy-install", bring(router, factory.bundle("router", "1", motd("1")))])
    third = bring(router, factory.bundle("router", "3", motd("3"), signer=new, keys=str(both)))
    assert router.ssh([FUSSY, "install", third], show_output=False).code == 20

    router.run([FUSSY, "install", bring(router, factory.bundle("router", "2", motd("2"), keys=str(both)))])
    router.reboot()
    router.run([FUSSY, "install", third])
    assert status(router)["current"]["version"] == "3"
