"""Who may set the first password, in real network namespaces: those beside the router, not those behind its uplink."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paradrop.backend.pdfcd.accounts import Accounts
from paradrop.lib.errors import ParadropError
from tests.paradrop.pdconfd.namespaces import Namespace, connect, remove

# What the router says of each address, by the code under test, in the router's namespace
ASK = ("import json, sys; from paradrop.lib import settings;"
       "from paradrop.backend.pdfcd.access import on_local_network;"
       "settings.UCI_CONFIG_DIR = sys.argv[1];"
       "print(json.dumps({one: on_local_network(one) for one in sys.argv[2:]}))")


@pytest.fixture
def router() -> Iterator[Namespace]:
    """A router with a LAN, an uplink with the default route, a bridge of a chute and Docker's."""
    made = [Namespace(f"page-{name}-{os.getpid()}") for name in ("router", "outside")]
    for one in made:
        subprocess.run(["ip", "netns", "add", one.name], check=True)
    here, outside = made
    for number, link in enumerate(("lan0", "wan0", "v00a1", "docker0", "br-lan", "spare0")):
        connect(here, link, outside, f"far{number}")
        here.run("ip", "address", "add", f"10.1.{number}.1/24", "dev", link)
        here.run("ip", "link", "set", "dev", link, "up")
        outside.run("ip", "link", "set", "dev", f"far{number}", "up")
    here.run("ip", "link", "set", "dev", "lo", "up")
    here.run("ip", "route", "add", "default", "via", "10.1.1.254")
    here.run("ip", "route", "add", "10.9.0.0/16", "via", "10.1.0.254")
    here.run("ip", "address", "add", "203.0.113.1/24", "dev", "lan0")
    yield here
    for one in made:
        remove(one)


def test_the_local_network(router: Namespace, tmp_path: Path) -> None:
    (tmp_path / "network").write_text("config interface 'wan'\n\toption ifname 'spare0'\n")
    expected = {
        "127.0.0.1": True, "::1": True, "::ffff:127.0.0.1": True, "10.1.0.7": True, "10.1.4.7": True,
        "10.1.1.7": False, "10.1.2.7": False, "10.1.3.7": False, "10.1.5.7": False,
        "10.9.0.7": False, "192.168.77.7": False, "203.0.113.7": False, "8.8.8.8": False,
        "no address": False, "": False}
    said = router.run(sys.executable, "-c", ASK, str(tmp_path), *expected)
    assert json.loads(said) == expected


def test_of_two_first_users_one_is_made(home: Path) -> None:
    accounts = Accounts()
    with pytest.raises(ParadropError, match="8 to 200 characters"):
        accounts.set_first_user("admin", "short")
    accounts.set_first_user("admin", "correct horse")
    with pytest.raises(ParadropError, match="there is one"):
        accounts.set_first_user("eve", "correct horse")
    assert accounts.users() == {"admin": "admin"}
