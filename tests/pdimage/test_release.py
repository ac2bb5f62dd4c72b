"""What an image does on a router: its hooks, links and runtime, through upgrades, fallbacks and what came before."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from fussy.errors import Reverted
from fussy.pack import pack
from tests.fussy.conftest import Keys
from tests.pdimage.workshop import Workshop

FAILS = {"name": "never", "command": ["false"], "seconds": 1}


@pytest.fixture
def router(workshop: Workshop, packages: Path) -> Workshop:
    workshop.file("one/etc/old", "1")
    workshop.file("two/etc/new", "2")
    return workshop


def image(workshop: Workshop, packages: Path, version: str, **more: Any) -> dict[str, Any]:
    """Describe a router whose every file is in the directory of the test."""
    overlay = [str(packages), "one" if version == "1" else "two"]
    return {"name": f"router-{version}", "version": version, "system": str(workshop.system), "overlay": overlay,
            "settings": workshop.settings(), **more}


def install(workshop: Workshop, keys: Keys, packages: Path, version: str, **more: Any) -> Path:
    return workshop.install(workshop.pack(image(workshop, packages, version, **more), keys), keys.keyring)


def says(workshop: Workshop) -> str:
    with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{workshop.port}/v1/test", timeout=5) as answer:
        return str(answer.read().decode())


def lives(pid: int) -> bool:
    """Whether there is a process; one that has ended and waits for init to take notice is none."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def hook(release: Path, name: str, *more: str) -> None:
    """Run a hook as fussy 1.0 did: with the path of the release and no facts."""
    done = subprocess.run([release / name, release, *more], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runtime_follows_upgrades_fallbacks_and_rollbacks(router: Workshop, keys: Keys, packages: Path) -> None:
    install(router, keys, packages, "1")
    assert router.running_release() == "router-1"
    assert says(router).strip() == "SUCCESS"
    etc = router.system / "etc"
    assert os.readlink(etc / "old") == f"{router.target}/current/etc/old"
    assert (etc / "systemd/system/multi-user.target.wants/paradrop.service").resolve().is_file()
    assert "firmware-verify" in (etc / "cron.d/firmware").read_text()
    program = router.system / "usr/local/bin/paradrop"
    assert b"Install and watch chutes" in subprocess.run([program, "--help"], capture_output=True, timeout=60,
                                                         check=True).stdout

    install(router, keys, packages, "2")
    assert router.running_release() == "router-2"
    assert (router.place / "state/snapshots/.owner").read_text() == "router-2"
    assert (etc / "new").read_text() == "2"
    assert not os.path.lexists(etc / "old")
    # what is alike is shared, but cron refuses a crontab that has a second name
    links = [(etc / path).stat().st_nlink for path in ("systemd/system/firmware-recover.service", "cron.d/firmware")]
    assert links == [2, 1]

    with pytest.raises(Reverted, match="health check 'never' did not pass"):
        install(router, keys, packages, "3", health=[FAILS])
    assert router.running_release() == "router-2"
    assert says(router).strip() == "SUCCESS"

    router.fussy("rollback")
    assert router.running_release() == "router-1"
    assert (etc / "old").read_text() == "1"
    assert not os.path.lexists(etc / "new")
    assert "good" in router.fussy("verify")

    line = re.search(r" root (.*firmware-clean) ", (etc / "cron.d/firmware").read_text())
    assert line and (router.target / "router-3").is_dir()
    subprocess.run([router.system / line[1].lstrip("/")], check=True, timeout=60, stdin=subprocess.DEVNULL)
    assert sorted(path.name for path in router.target.glob("router-*")) == ["router-1", "router-2"]


def test_what_lasts_comes_back_with_the_release_that_had_it(router: Workshop, keys: Keys, packages: Path) -> None:
    chutes, radio, extra = router.place / "state/marker", router.place / "uci/wireless", router.place / "srv/db"

    def note(text: str) -> None:
        for path in (chutes, radio, extra):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def noted() -> set[str]:
        return {path.read_text() for path in (chutes, radio, extra)}

    lasting = {"persistent": [f"{router.place}/srv"]}
    install(router, keys, packages, "1", **lasting)
    note("of 1")
    install(router, keys, packages, "2", **lasting)
    assert noted() == {"of 1"}
    note("of 2")
    router.file("damage.sh", f"#!/bin/sh\nrm -r {router.place}/srv; echo spoilt >{radio}; echo spoilt >{chutes}\n")
    for hook_name in ("pre_install", "post_install"):
        with pytest.raises(Reverted):
            install(router, keys, packages, "3", **lasting, hooks={hook_name: "damage.sh"}, health=[FAILS])
        assert noted() == {"of 2"}
    note("later of 2")
    router.fussy("rollback")
    assert noted() == {"of 1"}
    note("later of 1")
    # what can't be kept is not left; what this release had when it was left earlier does not come back then
    router.file("bin/cp", "#!/bin/sh\necho No space left >&2\nexit 1\n", 0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fussy.hooks.SEARCH_PATH", f"{router.place}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        with pytest.raises(Reverted, match="No space left"):
            install(router, keys, packages, "4", **lasting)
    assert router.running_release() == "router-1"
    assert noted() == {"later of 1"}


def test_hooks_may_run_twice_and_by_hand(router: Workshop, packages: Path) -> None:
    release = router.build(image(router, packages, "1"), "opt/router-1").tree
    for name in (".pre-install", ".pre-install"):
        hook(release, name)
    os.symlink("router-1", router.target / "current")
    hook(release, ".post-install")
    first = router.pid()
    hook(release, ".post-install", "True")
    assert first
    assert router.pid() not in (0, first)
    assert not lives(first)
    hook(release, ".pre-install", "True")
    hook(release, ".pre-install", "False")
    assert router.pid() == 0


def test_a_runtime_that_does_not_start_is_told(router: Workshop, packages: Path) -> None:
    router.file("one/bin/pd", "#!/bin/sh\necho no such luck\nexit 1\n", 0o755)
    release = router.build(image(router, packages, "1"), "opt/router-1").tree
    os.symlink("router-1", router.target / "current")
    done = subprocess.run([release / ".post-install", release], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, f"the runtime does not start, see {router.place}/run/pd.log\n")
    assert "no such luck" in (router.place / "run/pd.log").read_text()


def test_a_process_with_the_old_number_is_left_alone(router: Workshop, packages: Path) -> None:
    release = router.build(image(router, packages, "1"), "opt/router-1").tree
    with subprocess.Popen(["sleep", "60"]) as bystander:
        for text in (str(bystander.pid), "", "no number", "-1", "1\n2"):
            router.file("run/pd.pid", text)
            hook(release, ".pre-install")
            assert bystander.poll() is None
            assert not (router.place / "run/pd.pid").exists()
        bystander.kill()


def test_it_follows_a_release_packed_by_hand_and_makes_way_for_it(
        router: Workshop, keys: Keys, packages: Path) -> None:
    router.file("ancient/bin/app", "#!/bin/sh\n", 0o755)
    router.file("ancient/.pre-install", "#!/bin/sh\n", 0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(keys.home))
        bundle = Path(pack(router.place / "ancient", encrypt_for=keys.device, sign_with=keys.signer,
                           output=router.place))
    router.install(bundle, keys.keyring)
    install(router, keys, packages, "2")
    assert router.running_release() == "router-2"
    router.fussy("rollback")
    assert (router.target / "current").resolve().name == "ancient"
    router.fussy("rollback")
    assert router.running_release() == "router-2"


def test_users_hooks_run_between_ours_and_their_failure_falls_back(
        router: Workshop, keys: Keys, packages: Path) -> None:
    log = router.place / "hooks.log"
    for name in ("before", "after"):
        router.file(f"{name}.sh", f'#!/bin/sh\necho {name} "$1" "$FUSSY_ACTION" >>{log}\n', 0o755)
    hooks = {"pre_install": "before.sh", "post_install": "after.sh"}
    first = install(router, keys, packages, "1", hooks=hooks)
    assert log.read_text().splitlines() == [f"before {first} install", f"after {first} install"]
    router.file("bad.sh", "#!/bin/sh\necho cannot convert\nexit 3\n")
    for kind in hooks:
        with pytest.raises(Reverted, match="cannot convert"):
            install(router, keys, packages, "2", hooks={kind: "bad.sh"})
        assert router.running_release() == "router-1"
        assert says(router).strip() == "SUCCESS"


def test_an_image_without_the_runtime_only_links(workshop: Workshop, keys: Keys) -> None:
    workshop.file("o/etc/motd", "plain")
    plain = {"name": "plain", "version": "1", "system": str(workshop.system), "overlay": ["o"],
             "platform": {"paradrop": False, "fussy": False}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fussy.hooks.SEARCH_PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
        workshop.install(workshop.pack(plain, keys), keys.keyring)
    assert (workshop.system / "etc/motd").read_text() == "plain"
    assert not (workshop.system / "etc/systemd").exists()


# Every boot here has the uptime of the real machine.
LONG = 80_000


def boot(workshop: Workshop, number: int) -> None:
    """Start what cron starts at a boot, and later, where the kernel tells of another boot."""
    boots = workshop.file(f"boot-{number}", f"00000000-0000-0000-0000-00000000000{number}\n")
    bin_ = workshop.system / "usr/local/bin"
    script = (f"mount --bind {boots} /proc/sys/kernel/random/boot_id && {bin_}/firmware-recover && "
              f"{bin_}/firmware-trial")
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=120,
                          check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_image_on_trial_is_confirmed_by_a_boot_or_taken_back(
        router: Workshop, keys: Keys, packages: Path) -> None:
    install(router, keys, packages, "1")
    install(router, keys, packages, "2", trial={"confirm": "boot", "seconds": LONG})
    assert "firmware on trial" in (router.system / "etc/systemd/system/firmware-trial.service").read_text()
    assert "and 2 boots are left to boot and pass its checks" in router.fussy("status")
    boot(router, 1)
    assert router.running_release() == "router-2"
    assert "router-2 confirmed" in router.fussy("status")

    release = install(router, keys, packages, "3", trial={"confirm": "hand", "boots": 1, "seconds": LONG})
    # its own fussy does not start any more: another release's takes it back
    (release / "bin/fussy").unlink()  # it is the same file in all of them
    (release / "bin/fussy").symlink_to("/bin/false")
    for number in (2, 3):
        with contextlib.suppress(AssertionError):  # of the trial's, which is its own as well
            boot(router, number)
    assert os.readlink(router.target / "current") == "router-2"
    assert "booted 2 times without being confirmed" in router.fussy("status")
