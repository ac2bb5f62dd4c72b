"""A router whose image a build server makes: what failed there bars it no longer than what failed in a channel."""

import hashlib
import json
from pathlib import Path

import pytest

from fussy import disk, ondemand, state
from fussy.ondemand import Request
from fussy.updating import demand
from fussy.updating.update import Wish
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware

from .router import Router
from .web import Answer, Server, running

WISH = {"distro": "tiny", "version": "1.0", "target": "x86/64", "profile": "generic", "packages": ["motd"]}
REQUEST = Request("tiny", "1.0", "x86/64", "generic", ("motd",), diff_packages=True)


class Builder(Server):
    """A build server that has BUNDLE ready."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(bundle.parent)
        self.bundle = bundle

    def take(self, method: str, path: str, body: bytes) -> Answer:
        if path == "api/upgrade-check":
            return Answer(204)
        content = self.bundle.read_bytes()
        return Answer(200, json.dumps({
            "request_hash": ondemand.digest(REQUEST), "sysupgrade": f"{self.url}/{self.bundle.name}",
            "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}).encode())


def test_what_was_not_its_doing_does_not_bar_a_release_for_good(
        tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = Firmware(tmp_path, keys)
    firmware.target = tmp_path / "router/opt"
    bundle = firmware.pack("tiny-1.0", {"etc/motd": "new"}, release={
        "version": "1.0", "metadata": {"request": ondemand.digest(REQUEST), "packages": "motd="}})
    (tmp_path / "root").touch()
    with running(Builder(bundle)) as server:
        router = Router(tmp_path, keys, tmp_path / "root", product="", on_demand={"server": server.url, **WISH})
        firmware.install(firmware.pack("old", {"etc/motd": "old"}))
        swap = disk.swap_link

        def broken(link: Path, destination: str) -> None:
            if destination == "tiny-1.0":
                raise OSError(5, "Input/output error")
            swap(link, destination)

        for tries in (1, 2, 3):
            monkeypatch.setattr("fussy.disk.swap_link", broken)
            done = demand.run(router.target, router.settings, router.keyring, Wish())
            assert (done.outcome, router.current()) == ("reverted", "old"), done.line
            assert [bad.excused for bad in state.load(router.found).bad] == [tries]
        refused = demand.run(router.target, router.settings, router.keyring, Wish())
        assert (refused.outcome, refused.exit_code) == ("refused", 26)
        assert [one.until for one in refused.spoilt] == [0]
        assert server.requests.count(bundle.name) == 3


def test_what_failed_in_a_run_that_was_killed_is_not_installed_again(tmp_path: Path, keys: Keys) -> None:
    """Nobody noted then which request it was; the release is known by its digest."""
    firmware = Firmware(tmp_path, keys)
    firmware.target = tmp_path / "router/opt"
    bundle = firmware.pack("tiny-1.0", {".post-install": "#!/bin/sh\n[ \"$2\" = True ]\n"}, release={
        "version": "1.0", "metadata": {"request": ondemand.digest(REQUEST), "packages": "motd="}})
    (tmp_path / "root").touch()
    with running(Builder(bundle)) as server:
        router = Router(tmp_path, keys, tmp_path / "root", product="", on_demand={"server": server.url, **WISH})
        firmware.install(firmware.pack("old", {"etc/motd": "old"}))
        assert demand.run(router.target, router.settings, router.keyring, Wish()).outcome == "reverted"
        (router.private / "state.json").unlink()
        for fetched in (2, 2):
            again = demand.run(router.target, router.settings, router.keyring, Wish())
            assert (again.outcome, again.exit_code, router.current()) == ("refused", 26, "old"), again.line
            assert server.requests.count(bundle.name) == fetched
