"""Hooks and units of a release on a real systemd: it boots as process 1 of a container over a copy-on-write root."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pdimage.workshop import Workshop

pytestmark = pytest.mark.slow
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_SECONDS = 60


@dataclass
class Machine:
    """A machine whose process 1 is systemd. root: what it sees as /; pid: that of its process 1 here."""

    root: Path
    pid: int

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", *argv], env={"PATH": PATH},
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)

    def hook(self, release: str, name: str) -> None:
        done = self.run(f"/opt/firmware/{release}/.{name}", f"/opt/firmware/{release}")
        assert done.returncode == 0, done.stdout + done.stderr

    def current(self, release: str) -> None:
        link = self.root / "opt/firmware/current"
        link.unlink(missing_ok=True)
        link.symlink_to(release)

    def state(self, unit: str = "paradrop.service") -> str:
        return self.run("systemctl", "is-active", unit).stdout.strip()

    def runs(self) -> str:
        """Return the release whose runtime the service's main process is, empty if there is none."""
        pid = self.run("systemctl", "show", "-P", "MainPID", "paradrop.service").stdout.strip()
        line = self.run("cat", f"/proc/{pid}/cmdline").stdout
        return line.partition("/opt/firmware/")[2].partition("/")[0]


@pytest.fixture
def boot() -> Iterator[Callable[[], Machine]]:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None or not Path("/lib/systemd/systemd").exists():
        pytest.skip("booting systemd needs root and the apt packages systemd and systemd-container")
    place = Path(tempfile.mkdtemp(prefix="boot-", dir="/var/tmp"))
    for name in ("up", "work", "root"):
        (place / name).mkdir()
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                              f"lowerdir=/,upperdir={place}/up,workdir={place}/work", place / "root"],
                             capture_output=True, text=True, check=False, timeout=60)
    if mounted.returncode:
        pytest.skip(f"no overlay can be mounted here: {mounted.stderr.strip()}")
    processes: list[subprocess.Popen[bytes]] = []
    machines: list[int] = []

    def boot() -> Machine:
        root = place / "root"
        for path in ("opt/firmware", "etc/config", "etc/fussy", "etc/paradrop", "var/lib/paradrop"):
            shutil.rmtree(root / path, ignore_errors=True)
        (root / "opt/firmware").mkdir(parents=True)
        (root / "etc/machine-id").unlink(missing_ok=True)  # with one of its own nothing of a first boot is to be done
        (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        process = subprocess.Popen(
            ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--private-network", "-D", root, "-b",
             "--console=pipe", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        processes.append(process)
        for _ in range(BOOT_SECONDS * 5):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children:
                machine = Machine(root, int(children[0]))
                machines.append(machine.pid)
                if machine.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return machine
            if process.poll() is not None:
                break
            time.sleep(0.2)
        pytest.skip("systemd does not boot in a container here")

    try:
        yield boot
    finally:
        for pid in set(machines):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # process 1 takes its whole machine with it
        for process in processes:
            process.kill()
            process.wait(60)
        subprocess.run(["umount", "-l", place / "root"], check=False, timeout=60)
        shutil.rmtree(place, ignore_errors=True)


def test_the_runtime_is_a_service_that_follows_the_release(
        workshop: Workshop, packages: Path, boot: Callable[[], Machine]) -> None:
    workshop.file("broken/bin/pd", "#!/bin/sh\necho no such luck >&2\nexit 1\n", 0o755)
    machine = boot()
    for version in ("1", "2", "3"):
        overlay = [str(packages), *(["broken"] if version == "3" else [])]
        built = workshop.build({"name": f"router-{version}", "version": version, "overlay": overlay})
        shutil.copytree(built.tree, machine.root / f"opt/firmware/router-{version}", symlinks=True)

    machine.hook("router-1", "pre-install")
    machine.current("router-1")
    machine.hook("router-1", "post-install")
    assert (machine.state(), machine.runs()) == ("active", "router-1")
    units = ("paradrop.service", "firmware-recover.service", "firmware-trial.timer")
    assert machine.run("systemctl", "is-enabled", *units).stdout.split() == ["enabled"] * 3
    checked = machine.run("systemd-analyze", "verify", "--man=no", *(f"/etc/systemd/system/{unit}" for unit in units))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert machine.run("systemctl", "start", "firmware-recover.service").returncode == 0
    assert machine.run("systemctl", "is-active", "firmware-trial.timer").stdout == "active\n"

    before = machine.run("systemctl", "show", "-P", "MainPID", "paradrop.service").stdout
    machine.run("systemctl", "kill", "--signal=KILL", "paradrop.service")
    for _ in range(150):
        after = machine.run("systemctl", "show", "-P", "MainPID", "paradrop.service").stdout
        if machine.state() == "active" and after not in (before, "0\n"):
            break
        time.sleep(0.2)
    assert machine.runs() == "router-1", "systemd starts it again"

    machine.hook("router-2", "pre-install")
    assert machine.state() == "inactive"
    assert (machine.root / "var/lib/paradrop/snapshots/router-1~1").is_dir()
    machine.current("router-2")
    machine.hook("router-2", "post-install")
    assert (machine.state(), machine.runs()) == ("active", "router-2")

    # a boot that finishes an upgrade: the runtime comes after firmware-recover.service, which runs the hook
    override = machine.root / "etc/systemd/system/firmware-recover.service.d/hook.conf"
    override.parent.mkdir()
    override.write_text("[Service]\nTimeoutStartSec=60\nExecStart=\n"
                        "ExecStart=/opt/firmware/router-2/.post-install /opt/firmware/router-2 True\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "paradrop.service")
    assert machine.run("systemctl", "start", "firmware-recover.service").returncode == 0
    assert (machine.state(), machine.runs()) == ("active", "router-2")

    machine.hook("router-3", "pre-install")
    machine.current("router-3")
    done = machine.run("/opt/firmware/router-3/.post-install", "/opt/firmware/router-3")
    assert done.returncode == 1, "a runtime that does not start makes the release fail"
    assert "paradrop.service failed" in done.stderr
    machine.current("router-2")
    machine.hook("router-2", "post-install")
    assert (machine.state(), machine.runs()) == ("active", "router-2")
