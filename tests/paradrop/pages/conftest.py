"""A router that somebody uses: a real daemon beside a Docker engine, with a firmware that follows a channel."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, PASSWORD, Client, Window, chromium
from engine import Engine
from process import Daemon, running

from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys, keys

__all__ = ["keys"]

GREETER = {"name": "greeter", "owner": "me", "version": 1, "description": "Says hello to visitors.",
           "host_config": {"port_bindings": {80: 9000}},
           "dockerfile": {"inline": "FROM busybox\nRUN mkdir -p /www && echo hello > /www/index.html\n"
                                    "STOPSIGNAL SIGKILL\nCMD echo '<b>ready</b>'; httpd -f -p 80 -h /www\n"}}
NETWORK = """config interface 'lan' #__PARADROP__
\toption proto 'static'
\toption ifname 'lan0'
\toption ipaddr '192.168.1.1'
\toption netmask '255.255.255.0'
config interface 'wan' #__PARADROP__
\toption proto 'dhcp'
\toption ifname 'wan0'
"""
WIRELESS = """config wifi-device 'radio0' #__PARADROP__
\toption type 'auto'
\toption channel '6'
config wifi-iface #__PARADROP__
\toption device 'radio0'
\toption ssid 'Home <network>'
\toption mode 'ap'
\toption encryption 'psk2'
\toption key 'never shown anywhere'
\toption network 'lan'
config wifi-iface #guests
\toption device 'radio0'
\toption ssid 'Guests'
\toption mode 'ap'
\toption encryption 'none'
"""
DHCP = "config dhcp 'lan' #__PARADROP__\n\toption interface 'lan'\n\toption limit '150'\n\toption leasetime '12h'\n"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: the directory SCREENSHOTS of the environment, which is kept."""
    place = Path(os.environ.get("SCREENSHOTS", tmp_path_factory.mktemp("pictures")))
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Channel:
    """A channel that offers firmware-2, to be confirmed by hand; firmware-1 is installed in its ``firmware.target``."""
    made = Channel(tmp_path_factory.mktemp("channel"), keys)
    made.init()
    made.firmware.install(made.firmware.pack("firmware-1", {"etc/version": "1"}, version="1.0"))
    made.firmware.run("failsafe")
    return made


@pytest.fixture(scope="module")
def router(engine_of_session: Engine, tmp_path_factory: pytest.TempPathFactory, channel: Channel) -> Iterator[Daemon]:
    """A router on which nobody has an account yet. ``reboot`` only notes that it was called."""
    engine_of_session.clear()
    home = tmp_path_factory.mktemp("router")
    (home / "bin").mkdir()
    (home / "bin/reboot").write_text(f"#!/bin/sh\necho again >> {home}/reboots\n")
    (home / "bin/reboot").chmod(0o755)
    (home / "config").mkdir()
    for name, text in (("network", NETWORK), ("wireless", WIRELESS), ("dhcp", DHCP)):
        (home / "config" / name).write_text(text)
    keyring = channel.keys.keyring_knowing(name="router")
    (keyring / "root.json").write_bytes((channel.where.metadata / "1.root.json").read_bytes())
    (home / "update.toml").write_text(f'product = "router"\nsources = ["{channel.where.channel}"]\n')
    daemon = Daemon(home, engine_of_session, settings={
        "PATH": f"{home}/bin:{os.environ['PATH']}", "FIRMWARE_TARGET": str(channel.firmware.target),
        "FIRMWARE_KEYRING": str(keyring), "FIRMWARE_SETTINGS": str(home / "update.toml")})
    engine_of_session.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0peer")
    with running(daemon):
        yield daemon
    engine_of_session.run("ip", "link", "delete", "lan0")
    engine_of_session.clear()


@pytest.fixture(scope="module")
def owned(router: Daemon) -> Daemon:
    """The router, with users of each role."""
    for role in ("admin", "operator", "viewer"):
        router.paradrop("router", "password", "127.0.0.1", router.environment["PDFCD_PORT"], role, "--role", role,
                        "--password", PASSWORD)
    return router


@pytest.fixture(scope="module")
def greeter(owned: Daemon) -> Daemon:
    """The router with a chute."""
    (owned.home / "greeter.json").write_text(json.dumps(GREETER))
    owned.paradrop("chute", "install", "127.0.0.1", owned.environment["PDFCD_PORT"], "greeter.json")
    return owned


@pytest.fixture(scope="module")
def browser(router: Daemon) -> Iterator["object"]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    with chromium(router) as running_browser:
        yield running_browser


@pytest.fixture
def window(browser: object, pictures: Path) -> Iterator[Window]:
    one = Window(browser, pictures)
    yield one
    one.context.close()


@pytest.fixture
def plain(browser: object, pictures: Path) -> Iterator[Window]:
    """A window of a browser that runs no scripts."""
    one = Window(browser, pictures, scripts=False)
    yield one
    one.context.close()


@pytest.fixture
def client(owned: Daemon) -> Client:
    """A client that has logged in as the administrator."""
    one = Client(owned)
    assert one.log_in().status == 303
    return one
