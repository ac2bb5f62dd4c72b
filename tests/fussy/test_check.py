"""Self-repair: what became broken in any release is found, and mended by fetching only that."""

import doctest
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import check, checked, verify
from fussy.target import Target

from .channels import Channel
from .conftest import Keys
from .firmware import Firmware
from .update.router import Router
from .update.web import Answer, Server, serving

MEBIBYTE = 1 << 20


def test_examples_hold() -> None:
    assert doctest.testmod(check).failed == 0


def big(number: int) -> bytes:
    """Return what no compression makes smaller."""
    return random.Random(number).randbytes(3 * MEBIBYTE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> tuple[Channel, Router]:
    """A channel that offers firmware-1 and firmware-2 with parts: three of 3 MiB each, and one with the manifest; and a
    router that came from firmware-1 to firmware-2, with firmware-1 as its failsafe."""
    place = tmp_path_factory.mktemp("check")
    channel = Channel(place, keys)
    channel.init()
    router = Router(place, keys, channel.where.metadata / "1.root.json", channel.where.channel)
    for number in (1, 2):
        channel.add(number, "--parts", "--deltas", "0", files={
            "a/one": big(1), "a/two": big(2), f"b/only-{number}": big(10 + number), "etc/motd": "welcome"})
        router.update(expect="updated")
        if number == 1:
            made_by(router, "failsafe")
    router.target.rename(place / "template")
    return channel, router


@pytest.fixture
def channel(made: tuple[Channel, Router]) -> Channel:
    return made[0]


@pytest.fixture
def server(channel: Channel) -> Iterator[Server]:
    with serving(channel.where.channel) as started:
        yield started


@pytest.fixture
def router(made: tuple[Channel, Router], server: Server) -> Router:
    """The router as it was when it had come to firmware-2; it follows the channel by HTTP."""
    router = made[1]
    shutil.rmtree(router.target, ignore_errors=True)
    subprocess.run(["cp", "-a", router.target.parent.parent / "template", router.target], check=True)
    router.set(server.url)
    return router


def made_by(router: Router, verb: str, *arguments: str | Path, fails: int = 0) -> str:
    keyring: list[str | Path] = ["-k", router.keyring] if verb in ("install", "check") else []
    settings: list[str | Path] = ["-s", router.toml] if verb == "check" else []
    return router.run(*arguments, *keyring, *settings, "-l", router.place / "log", verb=verb, fails=fails)


def rot(file: Path) -> None:
    """Change a byte in place."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte[0] ^ 1]))


def whole(router: Router) -> None:
    for release in router.found.releases():
        assert verify.damage(release) == []


def report(router: Router) -> check.Report:
    found = check.load(router.found)
    assert found
    return found


def test_nothing_is_said_of_what_is_whole(router: Router, server: Server) -> None:
    server.requests.clear()
    assert made_by(router, "check", "--repair") == ""
    assert server.requests == []
    assert report(router).releases == ["failsafe", "firmware-1", "firmware-2"]
    assert json.loads(made_by(router, "check", "--json"))["broken"] == 0


def test_only_what_is_broken_is_fetched(router: Router, server: Server, channel: Channel) -> None:
    """A file that two releases share is broken through one of its names."""
    one, two = (router.target / f"firmware-{number}/a/one" for number in (1, 2))
    assert one.samefile(two)
    rot(two)
    said = made_by(router, "check", fails=24)
    assert said.splitlines() == [
        "3 releases: 2 files are broken", "  firmware-1/a/one has other content",
        "  firmware-2/a/one has other content",
        f"fussy check: cannot vouch for {router.target}: 2 files are broken; try fussy check --repair"]
    rot(router.target / "failsafe/a/one")  # no copy is left on the router
    server.requests.clear()
    server.sent = 0
    assert made_by(router, "check", "--repair") == "3 releases: 3 files were broken, all of them are mended\n"
    whole(router)
    assert one.samefile(two)
    assert not one.samefile(router.target / "failsafe/a/one")
    fetched = [path for path in server.requests if path.startswith("targets/")]
    assert len(fetched) == 1
    sizes = [(channel.where.channel / path).stat().st_size for path in fetched]
    assert server.sent < sum(sizes) + 100_000  # and metadata
    assert sum(sizes) < 3.1 * MEBIBYTE
    assert made_by(router, "check") == ""


def test_a_channel_without_parts_gives_the_full_bundle(tmp_path: Path, keys: Keys) -> None:
    channel = Channel(tmp_path, keys)
    channel.init()
    with serving(channel.where.channel) as server:
        router = Router(tmp_path, keys, channel.where.metadata / "1.root.json", server.url)
        for number in (1, 2):
            channel.add(number)
            router.update(expect="updated")
        rot(router.target / "firmware-1/bin/app")
        rot(router.target / "firmware-2/etc/version")
        (router.target / "firmware-2/.fussy/manifest.json").write_text("{")
        server.requests.clear()
        assert "3 files were broken, all of them are mended" in made_by(router, "check", "--repair")
        whole(router)
        names = [path.partition(".")[2] for path in server.requests if path.startswith("targets/")]
        assert sorted(set(names)) == ["firmware-1.tar.zst.gpg", "firmware-2.tar.zst.gpg"]
        assert router.record.outcome == "updated" and not list((router.private / "parts").iterdir())


def test_what_is_on_the_disk_is_not_fetched(router: Router, server: Server) -> None:
    rot(router.target / "firmware-2/a/one")  # failsafe has a copy
    current = router.target / "firmware-2"
    (current / "etc").rename(current / "was-etc")
    (current / "etc").symlink_to("/etc")  # what is mended must not be written there
    (current / "a/two").unlink()
    (current / "a/two/mine").mkdir(parents=True)
    (current / "b").chmod(0o700)
    (router.target / "failsafe/etc/motd").chmod(0o666)
    server.requests.clear()
    assert "3 releases: 7 files were broken, all of them are mended" in made_by(router, "check", "--repair")
    assert server.requests == []
    assert Path("/etc/motd").read_text() != "welcome"
    assert [problem for release in router.found.releases() for problem in verify.damage(release)] == [
        "'was-etc' is not in the manifest", "'was-etc/motd' is not in the manifest"]


def test_links_devices_and_names_are_mended(tmp_path: Path, keys: Keys) -> None:
    firmware = Firmware(tmp_path, keys)
    tree = firmware.tree("fw-1", {"bin/app": "app", "empty": ""})
    os.link(tree / "bin/app", tree / "bin/again")
    (tree / "link").symlink_to("bin/app")
    os.mkfifo(tree / "pipe")
    release = firmware.install(firmware.pack_tree(tree))
    (release / "bin/again").unlink()
    (release / "bin/again").write_text("app")
    (release / "link").unlink()
    (release / "link").symlink_to("elsewhere")
    (release / "pipe").unlink()
    (release / "empty").write_text("full")
    assert "4 files were broken, all of them are mended" in firmware.run("check", "--repair", "-s", "/nowhere")
    assert verify.damage(release) == []
    assert (release / "bin/again").samefile(release / "bin/app")
    rot(release / "bin/app")
    assert "there is no /nowhere" in firmware.run("check", "--repair", "-s", "/nowhere", fails=24)


def test_a_broken_manifest_is_mended_first(router: Router, server: Server) -> None:
    current = router.target / "firmware-2"
    manifest = current / ".fussy/manifest.json"
    manifest.write_text(manifest.read_text().replace('"version":"2.0"', '"version":"9.0"'))
    rot(current / "b/only-2")
    (router.target / "firmware-1/.fussy/manifest.json").write_text("{")  # failsafe has it
    server.requests.clear()
    assert "3 files were broken, all of them are mended" in made_by(router, "check", "--repair")
    whole(router)
    assert len([path for path in server.requests if path.startswith("targets/")]) == 2


def test_a_source_that_is_down_or_lies(router: Router, server: Server, channel: Channel) -> None:
    broken = router.target / "firmware-2/b/only-2"
    rot(broken)
    server.fault = lambda path, answer: Answer(503)
    said = made_by(router, "check", "--repair", fails=24)
    assert "cannot reach a source of the channel" in said
    assert report(router).note.startswith("cannot reach a source")
    server.fault = lambda path, answer: Answer(200, bytes(len(answer.body))) if "part" in path else answer
    assert "1 file is broken; cannot update: " in made_by(router, "check", "--repair", fails=24)
    server.fault = None
    router.set(channel.where.channel)  # a directory will do
    assert "it is mended" in made_by(router, "check", "--repair")
    whole(router)


def test_what_the_channel_does_not_have_is_left(router: Router, tmp_path: Path, keys: Keys) -> None:
    mine = Firmware(tmp_path, keys).pack("mine", {"mine": "mine"})
    made_by(router, "install", mine)
    rot(router.target / "mine/mine")
    assert "1 file is broken; install the release again" in made_by(router, "check", "--repair", fails=24)
    assert [(left.release, left.path) for left in report(router).left] == [("mine", "mine")]


def test_without_the_updater_the_disk_still_helps(router: Router) -> None:
    rot(router.target / "firmware-2/b/only-2")
    (router.target / "firmware-2/a/one").unlink()
    line = "import sys; sys.modules['tuf'] = None; from fussy.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", line, "check", "--repair", "-t", router.target, "-k", router.keyring,
                           "-s", router.toml, "-l", router.place / "log"], capture_output=True, text=True)
    assert done.returncode == 24
    assert "the Python package tuf" in done.stderr
    assert "2 files were broken, 1 of them is mended" in done.stdout


def test_a_part_that_another_key_signed_mends_nothing(router: Router) -> None:
    """The channel is right, but the router does not let this key sign firmware."""
    rot(router.target / "firmware-2/b/only-2")
    (router.keyring / "signers").write_text("0" * 40 + "\n")
    assert "ultimately trusted" in made_by(router, "check", "--repair", fails=24)
    (router.keyring / "signers").unlink()
    assert verify.damage(router.target / "firmware-2") == ["'b/only-2' has other content"]


def test_what_rotted_is_not_shared(tmp_path: Path, keys: Keys) -> None:
    """Rot below the file system leaves a file's times as they are, so it seems to be known as whole."""
    firmware = Firmware(tmp_path, keys)
    same = "same" * 1000
    release = firmware.install(firmware.pack("fw-1", {"same": same}))
    rot(release / "same")
    target = Target(firmware.target)
    entry = next(known for known in checked.load(target).values())
    checked.save(target, [checked.record(os.lstat(release / "same"), entry.identity)])
    assert "1 file is broken" in firmware.run("check", fails=24)
    assert (firmware.install(firmware.pack("fw-2", {"same": same})) / "same").read_text() == same
    assert "1 file was broken, it is mended" in firmware.run("check", "--repair")  # by the copy that fw-2 brought
