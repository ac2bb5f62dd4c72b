"""A release that takes the router down, or cuts it off, comes back by itself: nobody logs in meanwhile."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pdimage.lab import costs
from pdimage.lab.machine import VM, MachineFailed
from pdimage.lab.ssh import Unreachable

from .conftest import Factory
from .test_upgrades import FUSSY, bring, motd, status

# The watchdog is fed by systemd. These routers boot often, and quicker without Docker.
NO_DOCKER = "systemd.mask=docker.service systemd.mask=docker.socket systemd.mask=containerd.service"
pytestmark = [pytest.mark.lab(flavour="router", watchdog=True, append=NO_DOCKER), pytest.mark.slow]

# What the owner of the router asks of releases: that they boot, and that the gateway can be reached then.
OWNER = """
mkdir -p /etc/fussy/health.d
cat >/etc/fussy/trial.toml <<'END'
confirm = "boot"
boots = 1
END
cat >/etc/fussy/health.d/gateway.toml <<'END'
command = ["/bin/ping", "-c", "1", "-W", "2", "gateway.lab"]
seconds = 10
END
"""
# What every release asks of the unit that attends to a trial: a release that is taken back is started afresh.
TRIAL: dict[str, str | Path] = {"etc/systemd/system/firmware-trial.service.d/reboot.conf": """[Service]
ExecStopPost=/bin/sh -c 'if [ "$EXIT_STATUS" = 3 ]; then systemctl reboot; fi'
"""}
WANTED = "etc/systemd/system/multi-user.target.wants"
BREAK = """[Unit]
Description=A mistake
After=firmware-recover.service
Before=firmware-trial.service

[Service]
Type=oneshot
ExecStart={}

[Install]
WantedBy=multi-user.target
"""
HANG = """#!/bin/sh
# Nothing else gets a processor any more, not even the first program, which feeds the watchdog.
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
for processor in 0 1 2 3; do chrt -f 99 sh -c 'while :; do :; done' & done
wait
"""


def broken(command: str, files: Mapping[str, str] | None = None) -> dict[str, str | Path]:
    """Return the files of release 2, which has a service that runs COMMAND at boot."""
    return {**motd("2"), **TRIAL, "etc/systemd/system/mistake.service": BREAK.format(command),
            f"{WANTED}/mistake.service": Path("../mistake.service"), **(files or {})}


def is_back(router: VM) -> bool:
    """Tell whether the router can be reached, has come up altogether, and has its first release in use."""
    try:
        return router.ssh("systemctl is-system-running --wait; cat /etc/motd", show_output=False,
                          seconds=300).out.endswith("version 1\n")
    except (MachineFailed, Unreachable):
        return False


@pytest.mark.parametrize(("name", "files"), [
    ("cut", broken("/bin/sh -c 'ip link set eth0 down'")),
    ("crash", broken("/bin/sh -c 'echo c >/proc/sysrq-trigger'")),
    ("hang", broken("/opt/firmware/current/bin/hang", {"bin/hang": HANG})),
])
def test_a_release_that_breaks_the_boot_goes_back_by_itself(router: VM, factory: Factory, name: str,
                                                            files: dict[str, str | Path]) -> None:
    router.run(["/opt/fussy/bin/fussy-install", bring(router, factory.bundle("router", "1", {**motd("1"), **TRIAL}))])
    router.run(OWNER)
    router.run([FUSSY, "install", bring(router, factory.bundle(name, "2", files))])
    assert router.run("cat /etc/motd") == "version 2\n"
    boots = router.console.boots()

    begun = time.monotonic()
    router.ssh("systemctl reboot", show_output=False)
    while not is_back(router):
        assert time.monotonic() - begun < 900, router.console.tail(40)
        time.sleep(1)
    costs.note(f"a release is taken back ({name})", time.monotonic() - begun)

    assert router.console.boots() > boots
    if name == "hang":  # the watchdog's driver says of this boot that it was the watchdog's doing (WDIOF_CARDRESET)
        assert router.run("cat /sys/class/watchdog/watchdog0/bootstatus") == "32\n"
    assert "HARD LINKS" not in router.run("journalctl --boot --unit cron"), "cron refuses a crontab with a second name"
    shown = status(router)
    assert shown["current"]["version"] == "1"
    assert f"{name}-2" in router.run(f"{FUSSY} status")
