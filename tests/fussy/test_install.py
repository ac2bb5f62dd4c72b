"""Installing for real: gpg, hooks, links, fallback. What breaks on purpose is in test_refusals.py and tests/crash."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from fussy import checked, install, manifest, state
from fussy import target as targets
from fussy.errors import FussyError, HookFailed, Reverted, SystemSetup, Unrecoverable

from .conftest import Keys
from .firmware import Firmware


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


def current(target: Path) -> str:
    return os.readlink(target / "current")


def test_a_release_is_unpacked_and_made_current(firmware: Firmware) -> None:
    bundle = firmware.pack("fw-1", {"bin/app": "one", "etc/conf": "x=1"})
    assert install.install(bundle, firmware.keys.keyring, firmware.target) == (0, str(firmware.target / "fw-1"))
    assert current(firmware.target) == "fw-1"
    assert (firmware.target / "current/bin/app").read_text() == "one"
    assert (firmware.target / ".fussy").stat().st_mode & 0o777 == 0o700
    assert not (firmware.target / ".fussy/staging/tree").exists()


def test_the_same_firmware_twice_gets_a_number(firmware: Firmware) -> None:
    bundle = firmware.pack("fw", {"a": "1"})
    for name in ("fw", "fw-1", "fw-2"):
        firmware.install(bundle)
        assert current(firmware.target) == name


def test_unchanged_files_are_shared_and_changed_ones_are_not(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"same": "s" * 5000, "changed": "1", "moved/here": "m" * 100}))
    firmware.install(firmware.pack("fw-2", {"same": "s" * 5000, "changed": "2", "there/now": "m" * 100}))
    one, two = firmware.target / "fw-1", firmware.target / "fw-2"
    assert (one / "same").samefile(two / "same")
    assert (one / "moved/here").samefile(two / "there/now")
    assert (one / "changed").read_text() == "1"
    assert (two / "changed").read_text() == "2"


def test_same_size_and_time_but_other_content_is_not_shared(firmware: Firmware) -> None:
    for name, content in (("fw-1", "old bytes"), ("fw-2", "new bytes")):
        tree = firmware.tree(name, {"file": content})
        os.utime(tree / "file", (1_600_000_000, 1_600_000_000))
        firmware.install(firmware.pack_tree(tree))
    assert (firmware.target / "current/file").read_text() == "new bytes"


def test_a_file_that_was_edited_in_place_is_not_shared(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"file": "good bytes", "other": "o"}))
    edited = firmware.target / "fw-1/file"
    before = edited.stat()
    edited.write_text("evil bytes")
    os.utime(edited, ns=(before.st_atime_ns, before.st_mtime_ns))
    firmware.install(firmware.pack("fw-2", {"file": "good bytes", "other": "o"}))
    assert (firmware.target / "fw-2/file").read_text() == "good bytes"
    assert (firmware.target / "fw-2/other").samefile(firmware.target / "fw-1/other")


def test_a_file_with_another_mode_or_attribute_is_not_shared(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "x" * 50, "b": "y" * 50}))
    tree = firmware.tree("fw-2", {"a": "x" * 50, "b": "y" * 50})
    (tree / "a").chmod(0o4755)
    os.setxattr(tree / "b", "user.note", b"\x00\xff")
    firmware.install(firmware.pack_tree(tree))
    two = firmware.target / "fw-2"
    assert stat.S_IMODE((two / "a").stat().st_mode) == 0o4755
    assert os.getxattr(two / "b", "user.note") == b"\x00\xff"
    assert stat.S_IMODE((firmware.target / "fw-1/a").stat().st_mode) == 0o644
    assert not os.listxattr(firmware.target / "fw-1/b")


def test_what_was_checked_stays_known_through_installs_and_cleaning(firmware: Firmware) -> None:
    files = {f"f{i}": f"content {i}" for i in range(5)}
    firmware.install(firmware.pack("fw-1", {**files, "v": "1"}))
    firmware.install(firmware.pack("fw-2", {**files, "v": "2"}))
    firmware.install(firmware.pack("fw-3", {**files, "v": "3"}))
    install.clean(firmware.target)
    assert sorted(path.name for path in firmware.target.iterdir()) == [".fussy", "current", "fw-2", "fw-3"]
    records = checked.load(targets.find(firmware.target))
    for path in (firmware.target / "fw-3").glob("[fv]*"):
        assert records[path.stat().st_ino].holds(path.stat())


def test_links_modes_owners_times_and_attributes_arrive(firmware: Firmware) -> None:
    tree = firmware.tree("fw-1", {"dir/file": "f", "caps": "c", b"not \xff utf-8": "n", "new\nline": "l", "empty": ""})
    os.link(tree / "dir/file", tree / "hard")
    (tree / "soft").symlink_to("dir/file")
    (tree / "out").symlink_to("/etc/../etc/hosts")
    os.mkfifo(tree / "pipe", 0o640)
    os.lchown(tree / "soft", 12, 34)
    os.chown(tree / "caps", 1234, 5678)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(tree / "caps", "security.capability", capability)
    (tree / "dir").chmod(0o2750)
    os.utime(tree / "dir", (1_500_000_000, 1_500_000_000))
    firmware.install(firmware.pack_tree(tree))
    got = firmware.target / "fw-1"
    assert (got / "hard").samefile(got / "dir/file")
    assert os.readlink(got / "soft") == "dir/file"
    assert os.readlink(got / "out") == "/etc/../etc/hosts"
    assert stat.S_ISFIFO((got / "pipe").stat().st_mode)
    assert os.lstat(got / "soft").st_uid == 12
    assert ((got / "caps").stat().st_uid, (got / "caps").stat().st_gid) == (1234, 5678)
    assert os.getxattr(got / "caps", "security.capability") == capability
    assert stat.S_IMODE((got / "dir").stat().st_mode) == 0o2750
    assert (got / "dir").stat().st_mtime == 1_500_000_000
    assert Path(os.fsdecode(os.fsencode(got) + b"/not \xff utf-8")).read_text() == "n"
    assert (got / "new\nline").read_text() == "l"
    assert (got / "dir/file").stat().st_mtime == int((tree / "dir/file").stat().st_mtime)


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_large_files_go_through_pieces(firmware: Firmware, compress: str) -> None:
    import random

    content = random.Random(1).randbytes(3_500_001)
    bundle = firmware.pack("fw-1", {"a": "small", "large": content, "z": b"\0" * 2_000_000}, compress=compress)
    firmware.install(bundle)
    assert (firmware.target / "fw-1/large").read_bytes() == content
    firmware.install(firmware.pack("fw-2", {"a": "other", "large": content, "z": b"\0" * 2_000_000}, compress=compress))
    assert (firmware.target / "fw-2/large").samefile(firmware.target / "fw-1/large")
    assert (firmware.target / "fw-2/a").read_text() == "other"


@pytest.mark.parametrize("compress", [["gzip", "-9"], ["zstd", "-19"], ["cat"]], ids=lambda command: command[0])
def test_a_tree_packed_by_hand_installs_and_shares(firmware: Firmware, compress: list[str]) -> None:
    files = {"bin/app": "a" * 9000, "conf": "c"}
    firmware.install(firmware.pack_by_hand("fw-1", files, compress))
    firmware.install(firmware.pack_by_hand("fw-2", {**files, "conf": "d"}, compress))
    two = firmware.target / "fw-2"
    assert (two / "bin/app").samefile(firmware.target / "fw-1/bin/app")
    assert (two / "conf").read_text() == "d"
    assert not (firmware.target / ".fussy/staging/tree").exists()


HOOK = """#!/bin/sh
echo "$FUSSY_HOOK $1 $2 $FUSSY_ACTION $FUSSY_VERSION $FUSSY_PREVIOUS_VERSION $(pwd) ${EVIL:-clean} \
$(readlink "$FUSSY_TARGET/current")" >> {log}
exit {status}
"""


def hooks(log: Path, *, pre: int = 0, post: int = 0) -> dict[str | bytes, str | bytes]:
    return {".pre-install": HOOK.replace("{log}", str(log)).replace("{status}", str(pre)),
            ".post-install": HOOK.replace("{log}", str(log)).replace("{status}", str(post))}


def test_hooks_are_told_the_facts_in_a_clean_environment(
    firmware: Firmware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVIL", "leaked")
    log = tmp_path / "hooks.log"
    firmware.install(firmware.pack("fw-1", hooks(log), version="1.0"))
    firmware.install(firmware.pack("fw-2", hooks(log), version="2.0"))
    target = firmware.target
    assert log.read_text().splitlines() == [
        f"pre-install {target}/fw-1 False install 1.0  {target}/fw-1 clean ",
        f"post-install {target}/fw-1 False install 1.0  {target}/fw-1 clean fw-1",
        f"pre-install {target}/fw-2 False install 2.0 1.0 {target}/fw-2 clean fw-1",
        f"post-install {target}/fw-2 False install 2.0 1.0 {target}/fw-2 clean fw-2",
    ]


def test_a_failing_post_install_brings_the_previous_release_back(firmware: Firmware, tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"
    firmware.install(firmware.pack("fw-1", hooks(log)))
    log.unlink()
    with pytest.raises(Reverted, match=r"fw-1 is in use again"):
        firmware.install(firmware.pack("fw-2", hooks(log, post=3)))
    assert current(firmware.target) == "fw-1"
    assert [line.split()[:4:2] for line in log.read_text().splitlines()] == [
        ["pre-install", "False"], ["post-install", "False"], ["pre-install", "True"], ["post-install", "True"]]
    now = state.load(targets.find(firmware.target))
    assert now.last is not None and (now.last.outcome, now.last.release) == ("reverted", "fw-2")
    assert "exit status 3" in now.last.reason
    assert [bad.release for bad in now.bad] == ["fw-2"]
    assert now.transaction is None
    assert install.install(firmware.bundles["fw-2"], firmware.keys.keyring, firmware.target)[0] == 3


def test_a_failing_pre_install_deletes_the_new_release(firmware: Firmware, tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"
    firmware.install(firmware.pack("fw-1", hooks(log)))
    with pytest.raises(Reverted):
        firmware.install(firmware.pack("fw-2", hooks(log, pre=1)))
    assert current(firmware.target) == "fw-1"
    assert not (firmware.target / "fw-2").exists()


@pytest.mark.parametrize("failing", ["pre", "post"])
def test_a_failing_first_install_leaves_no_current(firmware: Firmware, tmp_path: Path, failing: str) -> None:
    bundle = firmware.pack("fw-1", hooks(tmp_path / "log", **{failing: 1}))
    with pytest.raises(Unrecoverable, match="none is current"):
        firmware.install(bundle)
    assert not os.path.lexists(firmware.target / "current")
    firmware.install(firmware.pack("fw-2", {"a": "works"}))
    assert current(firmware.target) == "fw-2"


def test_failsafe_comes_when_previous_fails_too(firmware: Firmware, tmp_path: Path) -> None:
    switch = tmp_path / "broken"
    fragile = {".post-install": f"#!/bin/sh\n[ ! -e {switch} ]\n"}
    firmware.install(firmware.pack("safe", {"a": "safe"}))
    firmware.run("failsafe")
    firmware.install(firmware.pack("fw-1", {**fragile, "a": "1"}))
    switch.touch()
    with pytest.raises(Reverted, match="failsafe is in use again"):
        firmware.install(firmware.pack("fw-2", {**fragile, "a": "2"}))
    assert current(firmware.target) == "failsafe"
    now = state.load(targets.find(firmware.target))
    assert now.last is not None and now.last.outcome == "failsafe"


def test_failsafe_shares_no_inode(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1" * 99, "b/c": "2" * 99}))
    firmware.run("failsafe")
    install.swap_link(firmware.target / "failsafe", firmware.target / "current")
    firmware.install(firmware.pack("fw-2", {"a": "1" * 99, "b/c": "2" * 99}))
    inodes = [{path.stat().st_ino for path in (firmware.target / name).rglob("*") if path.is_file()}
              for name in ("failsafe", "fw-1", "fw-2")]
    assert inodes[0].isdisjoint(inodes[1]) and inodes[0].isdisjoint(inodes[2])
    assert firmware.run("verify", "failsafe").startswith(f"{firmware.target}/failsafe: good")


def test_a_hook_that_hangs_is_killed_with_its_children(firmware: Firmware, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hook = f"#!/bin/sh\nsleep 60 & echo $! > {pids}; echo about to hang; sleep 60\n"
    firmware.install(firmware.pack("fw-1", {"a": "1"}))
    with pytest.raises(Reverted, match="longer than 0.5 s"):
        firmware.install(firmware.pack("fw-2", {".post-install": hook}, release={"limits": {"post_install": 0.5}}))
    assert not alive(int(pids.read_text()))
    assert current(firmware.target) == "fw-1"


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_daemon_that_a_hook_starts_does_not_hold_the_install(firmware: Firmware, tmp_path: Path) -> None:
    hook = f"#!/bin/sh\nsleep 30 & echo $! > {tmp_path}/pid\necho started\n"
    firmware.install(firmware.pack("fw-1", {".post-install": hook}, release={"limits": {"post_install": 5}}))
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 9)


@pytest.mark.parametrize(("hook", "words"), [
    ("#!/bin/sh\nkill -9 $$\n", "killed by SIGKILL"),
    ("#!/bin/sh\necho the last words\nexit 7\n", "exit status 7: the last words"),
    ("#!/bin/sh\nprintf 'red \\033[31m\\n\\nand blue\\n'\nexit 7\n", r"exit status 7: red \?\[31m / and blue"),
])
def test_a_hook_that_fails_says_why(firmware: Firmware, hook: str, words: str) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1"}))
    with pytest.raises(Reverted, match=words):
        firmware.install(firmware.pack("fw-2", {".pre-install": hook}))
    assert current(firmware.target) == "fw-1"


def test_an_interpreter_may_come_with_the_release(firmware: Firmware) -> None:
    tree = firmware.tree("fw-1", {".post-install": f"#!{firmware.target}/current/bin/sh\nexit 0\n"})
    (tree / "bin").mkdir()
    (tree / "bin/sh").symlink_to("/bin/sh")
    firmware.install(firmware.pack_tree(tree))
    assert current(firmware.target) == "fw-1"


def test_health_checks_decide(firmware: Firmware) -> None:
    well = {"name": "app", "command": ["/bin/cat", "state"], "contains": "well", "seconds": 0.2}
    firmware.install(firmware.pack("fw-1", {"state": "well"}, release={"health": [well]}))
    with pytest.raises(Reverted, match="health check 'app' did not pass"):
        firmware.install(firmware.pack("fw-2", {"state": "ill"}, release={"health": [well]}))
    hangs = {"name": "hangs", "command": ["/bin/sleep", "60"], "seconds": 0.3}
    with pytest.raises(Reverted, match="no answer"):
        firmware.install(firmware.pack("fw-3", {"state": "ill"}, release={"health": [hangs]}))
    nobody = {"name": "web", "http": "http://127.0.0.1:9/", "seconds": 0.2}
    with pytest.raises(Reverted, match="refused"):
        firmware.install(firmware.pack("fw-4", {"state": "ill"}, release={"health": [nobody]}))
    assert current(firmware.target) == "fw-1"


def test_rollback_goes_to_previous_and_back(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1"}, version="1"))
    firmware.install(firmware.pack("fw-2", {"a": "2"}, version="2"))
    firmware.run("rollback")
    assert current(firmware.target) == "fw-1"
    firmware.run("rollback")
    assert current(firmware.target) == "fw-2"
    firmware.run("rollback", "fw-1")
    assert current(firmware.target) == "fw-1"


def test_status_tells_all(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1"}, version="1.5"))
    with pytest.raises(Reverted):
        firmware.install(firmware.pack("fw-2", {".post-install": "#!/bin/sh\necho broken; exit 1\n"}, version="2"))
    told = json.loads(firmware.run("status", "--json"))
    assert told["current"] == {"name": "fw-1", "version": "1.5", "path": str(firmware.target / "fw-1")}
    assert told["bad"][0]["release"] == "fw-2"
    assert "broken" in told["last"]["reason"]
    text = firmware.run("status")
    assert "current   fw-1 (version 1.5)" in text
    assert "broken" in text


def test_verify_finds_each_kind_of_damage(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1", "b": "22", "c": "333", "d/e": "4", "f": "5"}))
    assert "good" in firmware.run("verify")
    release = firmware.target / "fw-1"
    (release / "a").write_text("x")
    (release / "b").unlink()
    (release / "c").chmod(0o600)
    (release / "more").touch()
    (release / "f").unlink()
    (release / "f").symlink_to("a")
    text = firmware.run("verify", fails=24)
    for line in ("'a' has other content", "'b' is missing", "'c' has mode 0600, not 0644", "'f' is a symlink",
                 "'more' is not in the manifest"):
        assert line in text


def test_clean_keeps_what_is_needed(firmware: Firmware, tmp_path: Path) -> None:
    for i in range(1, 5):
        firmware.install(firmware.pack(f"fw-{i}", {"a": str(i)}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (firmware.target / "link").symlink_to(elsewhere)
    (firmware.target / "failsafe").mkdir()
    alias = tmp_path / "alias"
    alias.symlink_to(firmware.target)
    install.clean(alias, protected=[alias / "fw-1"])
    assert sorted(os.listdir(firmware.target)) == [".fussy", "current", "failsafe", "fw-1", "fw-3", "fw-4"]
    assert (elsewhere / "precious").exists()


def test_a_directory_called_current_becomes_failsafe(firmware: Firmware) -> None:
    old = firmware.target / "current"
    old.mkdir(parents=True)
    (old / "a").write_text("old")
    firmware.install(firmware.pack("fw-1", {"a": "new"}))
    assert current(firmware.target) == "fw-1"
    assert (firmware.target / "failsafe/a").read_text() == "old"


def test_a_directory_called_current_beside_a_failsafe_is_refused(firmware: Firmware) -> None:
    (firmware.target / "current").mkdir(parents=True)
    (firmware.target / "failsafe").mkdir()
    with pytest.raises(RuntimeError):
        install.ensure_current_link(firmware.target / "current", firmware.target / "failsafe")
    with pytest.raises(SystemSetup, match="it is a directory"):
        firmware.install(firmware.pack("fw-1", {"a": "1"}))


def test_final_path(tmp_path: Path) -> None:
    (tmp_path / "fw").mkdir()
    (tmp_path / "current").symlink_to("fw")
    assert install.final_path(tmp_path / "current") == str(tmp_path / "fw")
    (tmp_path / "file").touch()
    for wrong in ("absent", "file"):
        with pytest.raises(OSError):
            install.final_path(tmp_path / wrong)


def test_the_documented_functions_one_by_one(firmware: Firmware) -> None:
    target, current_link = firmware.target, firmware.target / "current"
    one = install.install_bytes(firmware.pack("fw-1", {"a": "1"}), firmware.keys.keyring, target)
    assert one == str(target / "fw-1")
    assert not current_link.exists()
    install.enable(one, current_link)
    assert install.final_path(current_link) == one
    two = install.install_bytes(firmware.pack("fw-2", {".pre-install": "#!/bin/sh\nexit 1\n"}),
                                firmware.keys.keyring, target)
    with pytest.raises(HookFailed):
        install.enable(two, current_link)
    assert not Path(two).exists()
    assert install.final_path(current_link) == one
    with pytest.raises(FussyError, match="not in"):
        install.enable(firmware.place, current_link)


def test_swap_link_replaces_a_leftover(tmp_path: Path) -> None:
    (tmp_path / "fw").mkdir()
    (tmp_path / "current~").symlink_to("gone")
    install.swap_link(tmp_path / "fw", tmp_path / "current")
    assert os.readlink(tmp_path / "current") == "fw"
    assert sorted(os.listdir(tmp_path)) == ["current", "fw"]


def test_unpack_gives_the_inner_directory(firmware: Firmware) -> None:
    from fussy.unpack import unpack

    inner = Path(unpack(firmware.pack("fw-1", {"a": "1"}), firmware.keys.keyring))
    assert inner.name == "fw-1"
    assert (inner / "a").read_text() == "1"
    assert inner.parent.name.startswith("fussy-") and inner.parent.name.endswith("-unpacked")
    subprocess.run(["rm", "-r", inner.parent], check=True)


def test_two_installs_at_once(firmware: Firmware) -> None:
    """One of them does it, the other says so; or both, one after the other."""
    slow = firmware.pack("fw-1", {".pre-install": "#!/bin/sh\nsleep 1.5\n"})
    commands = [firmware.popen("install", slow) for _ in range(2)]
    codes = sorted(process.wait(60) for process in commands)
    output = "".join(process.communicate()[0] for process in commands)
    assert codes == [0, 5]
    assert "another fussy command works on it" in output
    assert current(firmware.target) == "fw-1"


def test_progress_counts_up_to_the_whole(firmware: Firmware, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    bundle = firmware.pack("fw-1", {"a": "1" * 1000, "b": "2" * 3000})
    install.install_release(bundle, firmware.keys.keyring, firmware.target, progress=note)
    assert seen[-1] == (4000, 4000)



def test_the_manifest_stays_in_the_release(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-1", {"a": "1"}, version="7", compatible=["board-x"]), boards=["board-x"])
    stored = manifest.decode((firmware.target / "fw-1/.fussy/manifest.json").read_bytes())
    assert (stored.name, stored.version, stored.compatible) == ("fw-1", "7", ["board-x"])
