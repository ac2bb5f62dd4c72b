"""How the boot is hooked in: the units, the init script and the cron lines, in a machine of their own without network.

A boot is a new boot_id of the kernel, which is the only thing that tells boots apart here.
"""

import json
import re
import shutil
import subprocess
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import manifest, owner

from .machine import CHECKOUT, COMMANDS, Machine, private_machine

BOOT = CHECKOUT / "fussy/boot"
# All boots here have the uptime of the real machine, so the time allowed is long.
RELEASE = json.dumps({"trial": {"confirm": "boot", "seconds": 1e7},
                      "health": [{"name": "app", "command": ["test", "!", "-e", "/etc/ill"], "seconds": 1}]})
CRON = dict(re.findall(r"^(@reboot|\S+ \S+ \* \* \S+)\s+root\s+(.*)$", (BOOT / "fussy.cron").read_text(), re.MULTILINE))
EARLY = {
    "init": "/etc/init.d/fussy start",
    "cron": CRON["@reboot"],
    "unit": re.findall(r"^ExecStart=(.*)$", (BOOT / "fussy-recover.service").read_text(), re.MULTILINE)[0],
}
LATE = CRON["*/5 * * * *"]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A router with firmware-1, which can be upgraded to firmware-2."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: see scripts/packages")
    with private_machine("build-keys", "keys", "/etc/fussy/keys") as made:
        made.run(f"ln -s {COMMANDS.parent} /opt/fussy && mkdir /etc/fussy && mkdir firmware-1 firmware-2")
        made.run("cat /proc/sys/kernel/random/boot_id > /tmp/boot_id")
        made.run("mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id")
        made.run("export GNUPGHOME=$PWD/build-keys && fussy keys signing 'A <a@example.org>' && "
                 "fussy keys keyring /etc/fussy/keys --signer a@example.org --name router")
        made.run(f"mkdir firmware-2/.fussy && echo '{RELEASE}' > firmware-2/.fussy/release.json")
        made.run("for n in 1 2; do echo $n > firmware-$n/version && "
                 "GNUPGHOME=$PWD/build-keys fussy pack -r firmware-$n -o . || exit; done")
        made.run("fussy install firmware-1.tar.gz.gpg")
        yield made


def boot(machine: Machine) -> None:
    machine.run(f"echo {uuid.uuid4()} > /tmp/boot_id")


def current(machine: Machine) -> str:
    return machine.run("readlink /opt/firmware/current").stdout.strip()


def alone(machine: Machine, line: str) -> "subprocess.CompletedProcess[str]":
    """Run LINE by /bin/sh with what cron has, and without network."""
    quoted = line.replace("'", "'\\''")
    return machine.run(f"env -i PATH=/usr/bin:/bin HOME=/root unshare --net sh -c '{quoted}'")


def test_the_units_are_in_order(machine: Machine) -> None:
    machine.run("rm -rf /etc/systemd/system && mkdir -p /etc/systemd/system")
    machine.run(f"cp {BOOT}/fussy-*.service {BOOT}/fussy-*.timer /etc/systemd/system")
    said = machine.run("cd /etc/systemd/system && systemd-analyze verify --man=no fussy-*.service fussy-*.timer 2>&1")
    assert said.stdout == ""
    for unit in BOOT.glob("*.service"):
        for line in re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE):
            machine.run(line)


@pytest.mark.parametrize("how", ["init", "cron", "unit"])
def test_three_wrong_boots_lead_back_before_anything_starts(machine: Machine, how: str) -> None:
    machine.run(f"cp {BOOT}/fussy.init /etc/init.d/fussy")
    machine.run("fussy install firmware-2.tar.gz.gpg")
    name = current(machine)
    assert name.startswith("firmware-2")
    for _ in range(2):
        boot(machine)
        alone(machine, EARLY[how])
        alone(machine, EARLY[how])
        assert current(machine) == name
    boot(machine)
    alone(machine, EARLY[how])
    assert current(machine) == "firmware-1"
    assert "trial     " + name + ": going back" in machine.run("fussy status").stdout
    alone(machine, LATE)
    assert f"last      … {name} reverted: booted 3 times without being confirmed" in re.sub(
        r"\d{4}\S+ \S+Z", "…", machine.run("fussy status").stdout)
    machine.run("fussy clean")


def test_the_page_shows_what_can_be_done(machine: Machine, tmp_path: Path) -> None:
    page = (BOOT / "README.rst").read_text()
    for line in re.findall(r"^    \$ (.*)$", page, re.MULTILINE):
        machine.run(f"cd {BOOT} && {line}")
    assert "fussy-recover.service" in machine.run("ls /etc/systemd/system/sysinit.target.wants").stdout
    assert "fussy-trial.timer" in machine.run("ls /etc/systemd/system/timers.target.wants").stdout
    trial, reboot, checks = re.findall(r"::\n\n((?:    [^$\n].*\n)+)", page)
    units = "/etc/systemd/system"
    machine.run(f"mkdir {units}/fussy-trial.service.d && cat >{units}/fussy-trial.service.d/reboot.conf <<'END'\n"
                f"{textwrap.dedent(reboot)}END")
    assert machine.run(f"systemd-analyze verify --man=no {units}/fussy-trial.service 2>&1").stdout == ""
    (tmp_path / "trial.toml").write_text(textwrap.dedent(trial))
    assert owner.demands(tmp_path).confirm == "boot"
    (tmp_path / "health.d").mkdir()
    for name, text in re.findall(r"^    (\S+\.toml) +((?:.+\n)(?: {8,}.+\n)*)", checks, re.MULTILINE):
        (tmp_path / "health.d" / name).write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    assert [check.name.removeprefix("health.d/") for check in owner.checks(tmp_path)] == [
        "chutes.toml", "dhcp.toml", "dns.toml", "nat.toml", "rules.toml", "way.toml"]
    fields = re.findall(r"^``(\w+)`` {2,}", page, re.MULTILINE)
    assert {*fields} == {*manifest.Check.__struct_fields__} - {"name"}


def test_a_good_boot_confirms_and_a_check_that_fails_later_takes_back(machine: Machine) -> None:
    machine.run("fussy install firmware-2.tar.gz.gpg")
    boot(machine)
    machine.run("touch /etc/ill")
    assert "is in use again" in machine.run(LATE, fails=3).stderr
    machine.run("rm /etc/ill")
    assert current(machine) == "firmware-1"
    machine.run("fussy install firmware-2.tar.gz.gpg")
    boot(machine)
    alone(machine, LATE)
    assert " confirmed" in machine.run("fussy status").stdout
    assert current(machine).startswith("firmware-2")


def test_the_clock_may_show_anything(machine: Machine) -> None:
    """From 1970 to 2100 it is 400 times as long as the release is allowed."""
    machine.run("fussy clean && fussy install firmware-2.tar.gz.gpg")
    name = current(machine)
    with_clock = "TZ=UTC FAKETIME_DONT_FAKE_MONOTONIC=1 faketime"
    for _ in range(2):
        for when in ("1970-01-01 00:01:00", "2100-01-01 00:00:00"):
            machine.run(f"{with_clock} '{when}' /opt/fussy/bin/fussy recover --early")
            machine.run(f"{with_clock} '{when}' /opt/fussy/bin/fussy check")
            shown = machine.run(f"{with_clock} '{when}' /opt/fussy/bin/fussy status").stdout
            assert f"trial     {name}: " in shown
            assert f"check     {when[:10]}" in shown
    boot(machine)
    # with the real clock: faketime lets clock_nanosleep(2) with TIMER_ABSTIME, which Python's sleep is, sleep for years
    machine.run("/opt/fussy/bin/fussy trial")
    assert f"{name} confirmed" in machine.run("fussy status").stdout
