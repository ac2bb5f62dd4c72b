"""Routers whose clock is wrong: 1970 because it has no battery, 2100 because somebody set it so."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .clocks import standing_at
from .conftest import Keys
from .firmware import Firmware

pytestmark = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is missing: install it")

THEN = {"1970": "1970-01-01 00:00:10", "2100": "2100-06-01 12:00:00"}
FUSSY = """
import runpy
runpy.run_module("fussy", run_name="__main__", alter_sys=True)
"""
HOOK = "#!/bin/sh\necho hook ran\n"


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


def at(when: str | None, firmware: Firmware, verb: str, *arguments: str | Path, keyring: Path | None = None,
       fails: int = 0) -> str:
    """Run a verb of fussy while the clock shows WHEN; return all that it says."""
    command = [verb, *map(str, arguments), "-t", str(firmware.target)]
    if verb == "install":
        command += ["-k", str(keyring or firmware.keys.keyring)]
    if verb in ("install", "clean", "rollback"):
        command += ["-l", str(firmware.place / "log")]
    environment = {**os.environ, "TZ": "UTC"}
    python = [sys.executable, "-m", "fussy"]
    if when:
        clock, environment = standing_at(when, firmware.place)
        python = [sys.executable, "-c", clock + FUSSY]
    done = subprocess.run([*python, *command], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == fails, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@pytest.mark.parametrize("year", THEN)
def test_a_firmware_is_installed_by_hand(firmware: Firmware, year: str) -> None:
    one = firmware.pack("fw-1", {"same": "s" * 5000, ".post-install": HOOK})
    two = firmware.pack("fw-2", {"same": "s" * 5000, "new": "n"})
    assert at(THEN[year], firmware, "install", one) == ""
    assert year in at(THEN[year], firmware, "status")
    log = (firmware.place / "log").read_text()
    assert "post-install: hook ran" in log
    assert all(line.startswith(year) for line in log.splitlines())
    assert json.loads(at(THEN[year], firmware, "status", "--json"))["last"]["outcome"] == "installed"
    assert at(None, firmware, "install", two) == ""  # the clock is set meanwhile
    assert (firmware.target / "current/same").samefile(firmware.target / "fw-1/same")
    at(THEN[year], firmware, "rollback")
    assert os.readlink(firmware.target / "current") == "fw-1"
    at(THEN[year], firmware, "clean")
    assert at(None, firmware, "verify").endswith("fw-1: good\n")


def test_in_2100_a_key_has_expired_and_that_is_said(firmware: Firmware, keys: Keys) -> None:
    key = keys.make("Mortal <mortal@example.org>", expires="2y")
    keyring = keys.keyring_knowing(key, signers=f"{keys.signer}\n{key}\n")
    bundle = firmware.pack("fw-1", {"a": "1"}, sign_with=key)
    said = at(THEN["2100"], firmware, "install", bundle, keyring=keyring, fails=20)
    assert len(said.splitlines()) == 1
    assert said.startswith(f"fussy install: cannot trust {bundle}: ") and "expired" in said
    assert not os.path.lexists(firmware.target / "current")
    assert not os.path.lexists(firmware.target / "fw-1")
    at(None, firmware, "install", bundle, keyring=keyring)


def test_in_1970_a_key_that_has_expired_by_now_cannot_be_told(firmware: Firmware, keys: Keys) -> None:
    """The clock is no earlier than the newest key; what expired after that comes through (see fussy.gpg.clock)."""
    key = keys.make("Brief <brief@example.org>", expires="2y")
    keyring = keys.keyring_knowing(key, signers=f"{key}\n")
    at(THEN["1970"], firmware, "install", firmware.pack("fw-1", {"a": "1"}, sign_with=key), keyring=keyring)
    long_ago = keys.keyring_knowing(keys.expired, signers=f"{keys.expired}\n")
    bundle = firmware.place / "old.gpg"
    keys.gpg("--sign", "--local-user", keys.expired, "--output", str(bundle), text=b"", at="-11d")
    said = at(THEN["1970"], firmware, "install", bundle, keyring=long_ago, fails=20)
    assert "expired" in said


def test_in_1970_everything_else_is_refused_as_ever(firmware: Firmware, keys: Keys) -> None:
    bundle = firmware.pack("fw-1", {"a": "1"}, sign_with=keys.foreign)
    assert "cannot trust" in at(THEN["1970"], firmware, "install", bundle, fails=20)


def test_a_clock_that_jumps_back_during_the_life_of_a_target(firmware: Firmware) -> None:
    for i, when in enumerate([THEN["2100"], THEN["1970"], None]):
        at(when, firmware, "install", firmware.pack(f"fw-{i}", {"a": str(i)}))
        assert os.readlink(firmware.target / "current") == f"fw-{i}"
    told = json.loads(at(None, firmware, "status", "--json"))
    assert (told["current"]["name"], told["previous"]["name"], told["bad"]) == ("fw-2", "fw-1", [])
