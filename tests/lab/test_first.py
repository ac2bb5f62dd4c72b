"""A router out of the factory gets its first firmware."""

import pytest

from pdimage.lab.machine import VM

from .conftest import INSTALLER, Factory

pytestmark = pytest.mark.lab


def test_the_first_firmware_is_copied_installed_and_in_use(router: VM, factory: Factory) -> None:
    factory.equip(router)
    bundle = factory.bundle("firmware", "1", {"etc/motd": "version 1\n"})
    router.copy_to(bundle, f"/tmp/{bundle.name}")

    router.run([f"{INSTALLER}/bin/fussy-install", f"/tmp/{bundle.name}"])

    assert "current   firmware-1 (version 1)" in router.run("/usr/local/bin/fussy status")
    assert router.run("cat /etc/motd") == "version 1\n"
