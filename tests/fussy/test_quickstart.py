"""The documented quick start, word for word, on a machine whose /opt, /tmp and /etc/fussy are its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fussy import cli, linktree, southrollback

from .machine import COMMANDS, Machine, private_machine

PHRASE = "correct horse battery"

@pytest.fixture
def machine() -> Iterator[Machine]:
    with private_machine("~/.gnupg", "/etc/fussy/keys") as made:
        yield made


def short_id(machine: Machine, listing: str) -> str:
    """The key id of eight digits, as the documents have it."""
    found = re.search(r"^fpr:::::::::([0-9A-F]{40}):", machine.run(f"{listing} --with-colons").stdout, re.MULTILINE)
    assert found
    return found[1][-8:]


def set_up_encryption(machine: Machine) -> tuple[str, str]:
    """Section 4.1; return the key ids of the signer and the device."""
    machine.run(f"gpg --batch --passphrase '{PHRASE}' --quick-generate-key 'Builds <builds@example.org>' "
                "future-default")
    signer = short_id(machine, "gpg -K")
    machine.run(f"gpg --batch --pinentry-mode loopback --passphrase '{PHRASE}' --export-secret-key -a > secret.key")
    machine.run("mkdir -p /etc/fussy/keys")
    machine.run("chmod 0700 /etc/fussy/keys")
    machine.run(f"gpg --export -a {signer} | GNUPGHOME=/etc/fussy/keys gpg --import")
    machine.type(f"GNUPGHOME=/etc/fussy/keys gpg --edit-key {signer} trust quit",
                 [("Your decision?", "5"), ("(y/N)", "y")])
    machine.run("GNUPGHOME=/etc/fussy/keys gpg --batch --passphrase '' --quick-generate-key 'Router <r@example.org>' "
                "future-default")
    device = short_id(machine, "GNUPGHOME=/etc/fussy/keys gpg -K")
    machine.run(f"GNUPGHOME=/etc/fussy/keys gpg --export -a {device} | gpg --import")
    machine.run("gpgconf --kill gpg-agent")  # it would remember the pass-phrase
    return signer, device


def test_the_quick_start_word_for_word(machine: Machine) -> None:
    _, device = set_up_encryption(machine)
    machine.run("mkdir sample-setup && echo hello > sample-setup/hello")
    machine.run("printf '#!/bin/sh\\necho $1 >> /opt/installed\\n' > sample-setup/.post-install")
    machine.run("chmod +x sample-setup/.post-install")
    shown = machine.type(f"fussy-pack -r sample-setup -e {device}", [("Enter passphrase:", PHRASE)])
    assert PHRASE not in shown
    assert "packing" in shown and "100%" in shown
    bundle = shown.splitlines()[-1]
    assert re.fullmatch(r"/tmp/fussy-[^/]+-pack/sample-setup\.tar\.gz\.gpg", bundle)

    assert "100%" in machine.type(f"fussy-install {bundle}")
    for _ in range(3):
        done = machine.run(f"fussy-install {bundle}")
        assert (done.stdout, done.stderr) == ("", "")  # cron would send a mail
    assert machine.run("ls -A /opt/firmware").stdout.split() == [
        ".fussy", "current", "sample-setup", "sample-setup-1", "sample-setup-2", "sample-setup-3"]
    assert machine.run("readlink -f /opt/firmware/current").stdout == "/opt/firmware/sample-setup-3\n"
    assert machine.run("cat /opt/firmware/current/hello /opt/installed").stdout.split() == [
        "hello", *(f"/opt/firmware/sample-setup{number}" for number in ("", "-1", "-2", "-3"))]
    assert "signed by" in machine.run("cat /tmp/fussy-install.log").stdout

    done = machine.run("fussy-clean")
    assert (done.stdout, done.stderr) == ("", "")
    left = machine.run("ls -A /opt/firmware").stdout.split()
    assert left == [".fussy", "current", "sample-setup-2", "sample-setup-3"]
    assert not Path("/opt/firmware/current/hello").exists(), "the real machine was touched"


def test_a_wrong_pass_phrase_packs_nothing(machine: Machine) -> None:
    _, device = set_up_encryption(machine)
    machine.run("mkdir firmware && touch firmware/a")
    shown = machine.type(f"fussy-pack -e {device}", [("Enter passphrase:", "nonsense")], fails=40)
    assert "cannot sign with key" in shown and "pass-phrase is wrong" in shown
    assert machine.run("ls -d /tmp/fussy-*", fails=2).stdout == ""
    shown = machine.type(f"fussy-pack -e {device}", [("Enter passphrase:", PHRASE)])
    assert shown.splitlines()[-1].endswith("/firmware.tar.gz.gpg")


def test_the_keys_may_come_with_the_firmware(machine: Machine) -> None:
    """The documented structure: /etc/fussy leads into the release in use, so a release can bring other keys."""
    _, device = set_up_encryption(machine)
    machine.run("gpgconf --homedir /etc/fussy/keys --kill all")
    machine.run("mkdir -p my-package/etc && mv /etc/fussy my-package/etc/")
    machine.run("ln -s /opt/firmware/current/etc/fussy /etc")
    bundle = machine.type(f"fussy-pack -r my-package -e {device}", [("Enter passphrase:", PHRASE)]).splitlines()[-1]
    machine.run(f"fussy-install -k my-package/etc/fussy/keys {bundle}")
    machine.run("rm -r my-package")
    machine.run(f"fussy-install {bundle}")
    assert machine.run("stat -c %a /etc/fussy/keys/").stdout == "700\n"
    assert machine.run("readlink /opt/firmware/current").stdout == "my-package-1\n"
    machine.run("fussy verify my-package && fussy verify")


# --- options ----------------------------------------------------------------------------------------------------------

DOCUMENTED = {
    "fussy-pack": (cli.pack_command, [("-r", "--root"), ("-x", "--exclude"), ("-e", "--encrypt-for"), ("-k", "--key")]),
    "fussy-install": (cli.install_command, [("-f", "--file"), ("-k", "--keyring"), ("-t", "--target"),
                                            ("-l", "--logfile")]),
    "fussy-clean": (cli.clean_command, [("-t", "--target"), ("-l", "--logfile")]),
    "fussy-link-tree": (linktree.get_options(), [("-d", "--directory"), ("-t", "--target")]),
    "fussy-southrollback": (southrollback.get_options(), [("-f", "--final_target"), ("-p", "--path"), ("-a", "--app"),
                                                          ("-d", "--django-admin")]),
}
FLAGS = [("fussy-pack", "-v", "--verbose"), ("fussy-install", "-v", "--verbose"), ("fussy-clean", "-v", "--verbose"),
         ("fussy-link-tree", "-v", "--verbose"), ("fussy-link-tree", "-H", "--hard"),
         ("fussy-link-tree", "-c", "--copy")]


def parsed(command: click.Command, arguments: list[str]) -> dict[str, object]:
    with command.make_context("name", arguments, resilient_parsing=True) as context:
        return dict(context.params)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_options_are_taken_in_both_forms(name: str) -> None:
    command, options = DOCUMENTED[name]
    for short, long in options:
        taken = [parsed(command, arguments) for arguments in ([short, "x"], [f"{short}x"], [long, "x"], [f"{long}=x"])]
        assert taken[0] == taken[1] == taken[2] == taken[3] != parsed(command, [])


@pytest.mark.parametrize(("name", "short", "long"), FLAGS)
def test_flags_are_taken_in_both_forms(name: str, short: str, long: str) -> None:
    command, _ = DOCUMENTED[name]
    assert parsed(command, [short]) == parsed(command, [long]) != parsed(command, [])


@pytest.mark.parametrize("name", DOCUMENTED)
def test_help_lists_every_documented_option(name: str) -> None:
    for way in ([name], ["fussy", name.removeprefix("fussy-")]):
        done = subprocess.run([COMMANDS / way[0], *way[1:], "--help"], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        for short, long in DOCUMENTED[name][1]:
            assert f"  {short}, {long}" in done.stdout


def test_the_documented_defaults() -> None:
    install, clean = parsed(cli.install_command, []), parsed(cli.clean_command, [])
    assert str(install["keyring"]) == "/etc/fussy/keys"
    assert str(install["target"]) == str(clean["target"]) == "/opt/firmware"
    assert str(install["logfile"]) == "/tmp/fussy-install.log"
    assert str(parsed(cli.pack_command, [])["root"]) == "firmware"


@pytest.mark.parametrize("arguments", [["fussy-install"], ["fussy-install", "a", "b"], ["fussy-install", "--nonsense"],
                                       ["fussy-link-tree"], ["fussy-southrollback"], ["fussy", "nonsense"]])
def test_usage_errors(arguments: list[str]) -> None:
    done = subprocess.run([COMMANDS / arguments[0], *arguments[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "" and "Usage:" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["fussy-pack", "fussy-install", "fussy-clean"])
def test_help_loads_nothing_heavy(name: str) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", COMMANDS / name, "--help"], capture_output=True,
                          text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    heavy = {"gnupg", "msgspec", "backports.zstd", "deflate", "ctypes", "subprocess", "hashlib", "tarfile", "asyncio"}
    assert not loaded & heavy
    assert {module for module in loaded if module.startswith("fussy")} == {
        "fussy", "fussy.cli", "fussy.commands", "fussy.errors"}
