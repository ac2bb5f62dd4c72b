"""The access point of a chute, on a simulated radio: a station finds it, joins it, and gets an address and a page."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdimage.lab.machine import VM
from pdimage.lab.prefix import Prefix
from tests.paradrop.engine import Engine, running
from tests.pdimage.workshop import python_packages

from .conftest import Factory
from .test_upgrades import bring

pytestmark = [pytest.mark.lab(flavour="router", memory=1024, radios=2), pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
# The second radio is a station's, which has a network of its own: it knows of the router only what is in the air.
STATION = "ip netns add station && iw phy phy1 set netns name station && ip -n station link set wlan1 up"
JOIN = """
cat >/tmp/station.conf <<'END'
network={
    ssid="Paradrop-Network"
    psk="ParadropRocks!"
}
END
ip netns exec station wpa_supplicant -B -i wlan1 -c /tmp/station.conf
"""
# An emulated processor that others use too may need minutes to start a container.
PATIENCE = {"DOCKER_TIMEOUT": "300", "DOCKER_START_TIMEOUT": "300", "PDCONFD_START_TIMEOUT": "300"}
IN_STATION = "ip netns exec station"


def again_and_again(command: str, shown: str) -> str:
    """Return a line of shell that runs a command of the station until it prints a text, three minutes at most."""
    return f"for i in $(seq 180); do {IN_STATION} {command} | grep -q '{shown}' && exit; sleep 1; done; exit 1"


@pytest.fixture(scope="module")
def builder() -> Iterator[Engine]:
    """The build machine's Docker engine, with the images that chutes are built from."""
    with running() as engine:
        subprocess.run([ROOT / "scripts/base-images"], check=True, capture_output=True, timeout=300,
                       env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_HOST": engine.url})
        yield engine


def test_a_station_joins_the_access_point_of_virtual_router(
        lab: Prefix, router: VM, factory: Factory, builder: Engine) -> None:
    (factory.www / "index.html").write_text("the page\n")
    packages = python_packages(factory.place / "runtime-packages")
    bundle = factory.bundle("router", "1", engine=builder.url, platform={"paradrop": True, "fussy": True},
                            overlay=[str(packages)], settings=PATIENCE, limits={"post_install": 1200},
                            chutes=[{"path": str(ROOT / "pdimage/chutes/virtual-router")}])
    router.run(STATION)

    router.run(["/opt/fussy/bin/fussy-install", bring(router, bundle)], seconds=1800)

    # on a busy machine a scan may hear nothing in the tenth of a second that it gives a channel
    router.run(again_and_again("iw dev wlan1 scan", "SSID: Paradrop-Network"))
    router.run(JOIN)
    router.run(again_and_again("iw dev wlan1 link", "SSID:"))
    router.run(f"{IN_STATION} busybox udhcpc -i wlan1 -n -q -t 20 -s /usr/lib/lab/udhcpc")
    # the uplink is in the pool that chutes have otherwise
    assert " inet 10." in router.run(f"{IN_STATION} ip -4 address show dev wlan1")
    page = router.run(f"{IN_STATION} curl --silent --show-error --max-time 60 http://{lab.virt_env.get_net().gw()}/")
    assert page == "the page\n"
