"""Trees and bundles that are odd but not wrong, or wrong in a way that must not hold up a router."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from fussy.errors import HookFailed, SystemSetup

from .conftest import Keys
from .firmware import Firmware


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


@pytest.mark.parametrize("hook", [".pre-install", ".post-install"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "link to a fifo"])
def test_a_hook_that_is_no_file_is_refused_at_once(firmware: Firmware, hook: str, kind: str) -> None:
    top = firmware.tree("fw", {"a": "1"})
    if kind == "directory":
        (top / hook).mkdir()
    else:
        os.mkfifo(top / ("pipe" if kind == "link to a fifo" else hook))
    if kind == "link to a fifo":
        (top / hook).symlink_to("pipe")
    with pytest.raises(HookFailed, match=f"its {hook} can't be started: it is not a file"):
        firmware.install(firmware.pack_tree(top))
    assert not os.path.lexists(firmware.target / "fw")


def test_a_tree_packed_by_hand_may_have_any_names(firmware: Firmware) -> None:
    """The installer's own temporary names are outside the release."""
    files = {".fussy~": "tilde", "tree~": "t", "same": "s" * 500, ".fussy/release.json": "{}", "current": "c"}
    for name in ("fw-1", "fw-2"):
        firmware.install(firmware.pack_by_hand(name, files))
    for name, content in files.items():
        assert (firmware.target / "fw-2" / name).read_text() == content
    assert (firmware.target / "fw-1/same").samefile(firmware.target / "fw-2/same")


def test_hard_links_of_a_tree_packed_by_hand_stay(firmware: Firmware) -> None:
    for name in ("fw-1", "fw-2"):
        top = firmware.tree(name, {"same": "s" * 500})
        os.link(top / "same", top / "z-link")
        tar = subprocess.run(["tar", "-cz", "-C", top.parent, name], capture_output=True, check=True).stdout
        firmware.install(firmware.seal(name, tar))
    one, two = firmware.target / "fw-1", firmware.target / "fw-2"
    assert (two / "same").samefile(two / "z-link")
    assert (two / "same").samefile(one / "same")


def test_an_attribute_that_the_file_system_does_not_take(firmware: Firmware) -> None:
    info = tarfile.TarInfo("fw/bin/app")
    info.pax_headers = {"SCHILY.xattr.strange.kind": "x"}
    parent = tarfile.TarInfo("fw/bin")
    parent.type = tarfile.DIRTYPE
    with pytest.raises(SystemSetup, match=r"cannot give bin/app its extended attribute strange\.kind: .*; install as"):
        firmware.install(firmware.pack_members("fw", [parent, info]))
    assert os.listdir(firmware.target / ".fussy/staging") == []


def test_progress_is_complete_when_everything_is_there_already(firmware: Firmware) -> None:
    from fussy import install

    bundle = firmware.pack("fw", {"a": "1" * 1000})
    firmware.install(bundle)
    seen: list[tuple[int, int]] = []
    install.install_release(bundle, firmware.keys.keyring, firmware.target,
                            progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1000, 1000)]


@pytest.mark.parametrize("name", ["fw with spaces", "v1.0~rc1+git:2@x", "x" * 150])
def test_names_that_a_release_can_have(firmware: Firmware, name: str) -> None:
    for number in ("", "-1"):
        assert firmware.install(firmware.pack_tree(firmware.tree(name, {"a": "1"})) if not number
                                else firmware.bundles[name]) == firmware.target / f"{name}{number}"
    assert "good" in firmware.run("verify", name)
    firmware.run("rollback")
    assert os.readlink(firmware.target / "current") == name


def test_a_file_may_be_called_as_the_release(tmp_path: Path, keys: Keys) -> None:
    firmware = Firmware(tmp_path, keys)
    assert (firmware.install(firmware.pack("same", {"same": "content"})) / "same").read_text() == "content"
