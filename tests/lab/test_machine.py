"""What tests do with a machine: run things in it, copy, look at services, pull the plug, go back."""

import json
import sys
import time
from pathlib import Path

import pytest

from pdimage.lab import costs
from pdimage.lab.machine import VM, MachineFailed
from pdimage.lab.prefix import Prefix
from pdimage.lab.snapshots import SnapshotFailed
from pdimage.lab.virt import ServiceState
from tests.fussy.terminal import on_terminal

pytestmark = pytest.mark.lab

PDIMAGE = str(Path(sys.executable).with_name("pdimage"))


def test_commands_files_and_services(router: VM, lab_directory: Path) -> None:
    status = router.ssh("cat; echo wrong >&2; exit 3", "input", show_output=False)
    assert (bool(status), status) == (True, (3, "input", "wrong\n"))
    script = lab_directory / "script"
    script.write_text("hostname\n")
    assert router.ssh_script(str(script), show_output=False).out == "router\n"
    with pytest.raises(MachineFailed, match="cannot run 'echo no; false' in router: exit code 1:\nno"):
        router.run("echo no; false")

    (lab_directory / "tree/sub").mkdir(parents=True)
    (lab_directory / "tree/sub/program").write_text("#!/bin/sh\necho runs\n")
    (lab_directory / "tree/sub/program").chmod(0o755)
    router.copy_to(lab_directory / "tree", "/root/tree")
    assert router.run("/root/tree/sub/program") == "runs\n"
    router.extract_paths([("/root/tree", str(lab_directory / "back")), ("/etc/hostname", str(lab_directory / "name"))])
    assert (lab_directory / "back/sub/program").stat().st_mode & 0o777 == 0o755
    assert (lab_directory / "name").read_text() == "router\n"

    assert router.service("ssh").state() == ServiceState.ACTIVE
    assert not router.service("telephone").exists()
    assert router.agent.run("/bin/hostname") == (0, "router\n")


def test_a_shell_and_the_serial_line_on_a_terminal(lab: Prefix, router: VM) -> None:
    def on(verb: str, *answers: tuple[str, str]) -> tuple[int, str]:
        return on_terminal([PDIMAGE, "lab", verb, "router", "--prefix", lab.paths.prefix()], answers, limit=300)

    assert on("ssh", ("root@router:~# ", "exit 7"))[0] == 7
    code, shown = on("console", ("lab-ready", ""), ("# ", "echo this is $(hostname)"), ("this is router", "\x1d"))
    assert code == 0, shown


# The second of two sectors of a superblock stays as it was before a change: the checksum is wrong, e2fsck -p gives up.
TEAR = """umount /opt && dd if=/dev/vdb of=/tmp/old bs=512 skip=3 count=1 && tune2fs -L torn /dev/vdb &&
dd if=/tmp/old of=/dev/vdb bs=512 seek=3 conv=notrunc,fsync; e2fsck -p /dev/vdb; echo "ended with $?"
"""


def test_what_is_not_on_disk_is_lost_with_the_power_and_a_snapshot_brings_the_rest_back(
        lab: Prefix, router: VM) -> None:
    assert router.run(TEAR).endswith("ended with 8\n")
    router.run("echo kept >/root/kept && sync && echo lost >/root/lost")
    router.power_off()
    assert not router.alive()
    with pytest.raises(MachineFailed, match="cannot use router: it does not run; start it"):
        router.run("true")
    lab.create_snapshots("off")

    router.start()
    router.wait_for_ssh()
    assert router.run("cat /root/kept; test ! -s /root/lost") == "kept\n"
    # the boot has repaired and mounted the other disk: nobody was asked
    assert router.run("mountpoint /opt && ls /opt/fussy/bin/fussy") == "/opt is a mountpoint\n/opt/fussy/bin/fussy\n"
    router.run("rm /root/kept; sync")
    lab.revert_snapshots("off")
    assert not router.alive()
    router.start()
    router.wait_for_ssh()
    assert router.run("cat /root/kept") == "kept\n"
    with pytest.raises(SnapshotFailed, match="there is no such snapshot; there are: start, off"):
        lab.revert_snapshots("never")


@pytest.mark.slow
@pytest.mark.lab(flavour="router", memory=1024)
def test_an_engine_with_its_containers_runs_on_in_a_snapshot(lab: Prefix, router: VM) -> None:
    router.service("docker").start()
    router.run("tar -C / -c bin/busybox | docker import - tiny")
    router.run("docker run --detach --name chute tiny /bin/busybox sleep 1000000")
    lab.create_snapshots("golden")
    router.run("docker rm --force chute")
    assert router.run("docker ps --quiet") == ""

    begun = time.monotonic()
    lab.revert_snapshots("golden")
    # docker itself is a big program, which takes longer to start under emulation than all of this
    engine = "curl --silent --fail --unix-socket /run/docker.sock http://engine/containers/json"
    assert [each["Names"] for each in json.loads(router.run(engine))] == [["/chute"]]
    costs.note("revert, until an engine names its containers", time.monotonic() - begun)
    assert router.run("docker ps --format '{{.Names}}'") == "chute\n"
    costs.note("revert, until docker ps names them", time.monotonic() - begun)
