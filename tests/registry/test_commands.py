"""The ``paradrop`` command and its server: accounts, certificates, tokens, as people use them."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.registry.certificates import fingerprint, self_signed
from tests.registry.conftest import PASSWORD, SMALL, pdimage
from tests.server.conftest import Start


@dataclass
class Computer:
    """A computer of somebody who uses the command."""

    place: Path
    password: str = PASSWORD

    def run(self, *words: str, typed: str = "", code: int = 0, **environment: str) -> str:
        """Return what a command says on both channels."""
        done = subprocess.run(
            [sys.executable, "-m", "paradrop.tools", *words], input=typed, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=90, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.place), "PARADROP_CONFIG_DIR": str(self.place / "config"),
                 "PARADROP_PASSWORD": self.password, **environment})
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    @property
    def kept(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.place / "config/server.json").read_text())
        return found


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    (tmp_path / "joe").mkdir()
    return Computer(tmp_path / "joe")


def test_an_account_from_the_first_command_to_the_last(start: Start, computer: Computer) -> None:
    server = start("--no-worker", **SMALL, name_length=3)
    assert "is made\nLogged in as joe (user) until 20" in computer.run("register", "-s", server.url, "-u", "joe")
    config = computer.place / "config"
    assert [stat.S_IMODE(place.stat().st_mode) for place in (config, config / "server.json")] == [0o700, 0o600]
    assert computer.run("router-create", "aardvark") == \
        "pd.joe.aardvark is made; give it to a device with: paradrop router-provision aardvark HOST PORT\n"
    assert "already; choose another name" in computer.run("router-create", "Aardvark", code=1)
    token = computer.run("tokens", "make", "nagios", "--read").strip()
    elsewhere: dict[str, Any] = {"PARADROP_CONFIG_DIR": str(computer.place / "other"), "PARADROP_SERVER": server.url,
                 "PARADROP_TOKEN": token}
    rows = [line.split() for line in computer.run("tokens", "list", **elsewhere).splitlines()]
    assert [row[1:4] for row in rows[1:]] == [["login", "no", rows[1][3]], ["made", "nagios", "yes"]]
    assert "this token only reads" in computer.run("router-create", "zebra", code=5, **elsewhere)
    computer.run("tokens", "end", rows[2][0])
    assert "log in again" in computer.run("tokens", "list", code=5, **elsewhere)
    before = computer.kept["token"]
    assert "is changed" in computer.run("password", PARADROP_OLD_PASSWORD=PASSWORD, PARADROP_PASSWORD="another horse")
    assert computer.kept["token"] != before
    assert computer.run("login", "-u", "joe", code=5) == "paradrop login: the name or the password is wrong\n"
    computer.run("login", "-u", "JOE", PARADROP_PASSWORD="another horse")
    code = pdimage(server.data, "reset", "joe").split()[0]
    assert "not good for this name" in computer.run("reset", "-u", "joe", code=5, PARADROP_CODE="0000-0000")
    assert "Logged in as joe (user)" in computer.run("reset", "-u", "joe", PARADROP_CODE=code)
    code = pdimage(server.data, "invite", "anndoe99").split()[0]
    assert "Logged in as anndoe99 (user)" in computer.run(
        "register", "-u", "anndoe99", "--invited", PARADROP_CODE=code, PARADROP_CONFIG_DIR=str(computer.place / "ann"),
        PARADROP_SERVER=server.url)
    assert computer.run("router-delete", "aardvark", "--yes") == "aardvark is deleted\n"
    assert computer.run("logout") == "Logged out\n"
    assert computer.run("router-create", "zebra", code=5) == \
        "paradrop router-create: You must login first. (paradrop login)\n"
    server.close()
    assert f"cannot reach a server at {server.url}" in computer.run("login", "-u", "joe", code=4)


def test_an_administrator_leads_accounts_from_elsewhere(start: Start, computer: Computer) -> None:
    server = start("--no-worker", **SMALL)
    pdimage(server.data, "add", "bossboss", "--role", "admin")
    computer.run("login", "-s", server.url, "-u", "bossboss")
    code = computer.run("accounts", "invite", "anndoe99").split()[0]
    elsewhere = {"PARADROP_CONFIG_DIR": str(computer.place / "anndoe99"), "PARADROP_SERVER": server.url}
    computer.run("register", "-u", "anndoe99", "--invited", PARADROP_CODE=code, **elsewhere)
    assert computer.run("accounts", "role", "anndoe99", "operator") == "anndoe99: operator\n"
    assert computer.run("accounts", "list", code=5, **elsewhere) == (
        "paradrop accounts list: the role operator may not do that (accounts.read); log in with an account that may\n")
    assert computer.run("accounts", "lock", "anndoe99") == "anndoe99: operator, locked\n"
    rows = [line.split() for line in computer.run("accounts", "list").splitlines()]
    assert [(*row[:2], row[-1]) for row in rows] == [
        ("NAME", "ROLE", "STATE"), ("anndoe99", "operator", "locked"), ("bossboss", "admin", "-")]
    assert computer.run("accounts", "unlock", "anndoe99") == "anndoe99: operator\n"
    code = computer.run("accounts", "reset", "anndoe99").split()[0]
    assert "as anndoe99 (operator)" in computer.run("reset", "-u", "anndoe99", PARADROP_CODE=code, **elsewhere)
    computer.run("router-create", "aardvark", **elsewhere)
    assert "anndoe99 has 1 router; delete them first" in computer.run("accounts", "delete", "anndoe99", "--yes", code=1)
    assert computer.run("router-clear", "pd.anndoe99.aardvark") == "pd.anndoe99.aardvark has no incident\n"
    computer.run("router-delete", "pd.anndoe99.aardvark", "--yes")
    assert computer.run("accounts", "delete", "anndoe99", "--yes") == "anndoe99 is deleted\n"
    assert "there is no account 'anndoe99'" in computer.run("accounts", "lock", "anndoe99", code=1)
    newest = computer.run("audit", "-n", "1").splitlines()
    assert [newest[0].split(), newest[1].split()[2:]] == [
        ["WHEN", "WHO", "FROM", "OF", "WHAT"],
        ["bossboss", "127.0.0.1", "anndoe99", "account.delete:", "role", "operator"]]
    assert json.loads(computer.run("accounts", "list", "--json"))[0]["name"] == "bossboss"


def test_a_certificate_is_compared_once_and_then_known(start: Start, computer: Computer, tmp_path: Path) -> None:
    server = start("--no-worker", **SMALL, **self_signed(tmp_path / "first"), listen="127.0.0.1:0")
    shown = fingerprint(tmp_path / "first")
    asked = computer.run("register", "-s", server.url, "-u", "joesmith", typed="n\n", code=1)
    assert shown in asked
    assert asked.endswith("its certificate was not accepted\n")
    assert not (computer.place / "config").exists()
    assert shown in computer.run("register", "-s", server.url, "-u", "joesmith", typed="y\n")
    assert computer.kept["certificate"] == (tmp_path / "first/certificate.pem").read_text()
    assert shown not in computer.run("router-create", "aardvark")
    server.close()
    again = start("--no-worker", **SMALL, **self_signed(tmp_path / "second"), listen=server.url.removeprefix("https://"))
    assert computer.run("router-create", "zebra", code=4) == (
        f"paradrop router-create: cannot trust a server at {again.url}: its certificate is not the one that this "
        f"computer knows, {shown}; if it was changed on purpose: paradrop login --new-certificate\n")
    assert fingerprint(tmp_path / "second") in computer.run("login", "--new-certificate", "-u", "joesmith", typed="y\n")
    computer.run("router-create", "zebra")


def test_what_can_be_no_server(computer: Computer) -> None:
    assert "cannot tell which server: name it with --server URL" in computer.run("login", "-u", "joe", code=1)
    for wrong in ("ftp://a", "nothing", "https://a:99999"):
        assert "cannot use the server" in computer.run("login", "-s", wrong, "-u", "joe", code=1)
