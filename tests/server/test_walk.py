"""The whole way: a device asks, waits in the queue, downloads, installs, and has what it asked for."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from fussy import install, manifest, ondemand
from fussy.errors import Incompatible
from fussy.keys import device_keyring
from fussy.ondemand import Request
from tests.server.conftest import Start
from tests.server.serverprocess import Server


def download(server: Server, answer: dict[str, str], place: Path) -> Path:
    """Load the image that an answer links to, as a device does."""
    found = server.get(answer["sysupgrade"])
    assert found.status == 200
    assert int(found.headers["Content-Length"]) == len(found.data)
    assert hashlib.sha256(found.data).hexdigest() == answer["sha256"]
    bundle = place / answer["sysupgrade"].rpartition("/")[2]
    bundle.write_bytes(found.data)
    return bundle


def test_from_the_question_to_the_new_release(start: Start, tmp_path: Path) -> None:
    server = start()
    device = {"distro": "tiny", "version": "1.0", "target": "x86", "subtarget": "64",
              "installed": {"motd": "1", "notes": "1", "old": "1"}}
    news = server.post("/api/upgrade-check", device)
    assert news.status == 200
    assert news.body == {"version": "1.1", "upgrades": {"motd": ["2", "1"], "notes-new": ["3", "1"]},
                         "packages": ["motd", "notes-new"],
                         "changes": {"renamed": {"notes": "notes-new"}, "dropped": {"old": "nobody liked it"}}}
    asked = server.post("/api/upgrade-request", {**device, "version": news.body["version"], "board": "pc",
                                                 "packages": news.body["packages"]})
    assert asked.status == 202
    assert asked.headers["X-Imagebuilder-Status"] == "queue"
    assert asked.headers["X-Build-Queue-Position"] == "0"
    built = server.wait(f"/api/upgrade-request/{asked.body['request_hash']}")
    assert built.status == 200, built.data
    bundle = download(server, built.body, tmp_path)

    (tmp_path / "opt/.fussy").mkdir(parents=True, mode=0o700)
    (tmp_path / "opt/.fussy/board").write_text("pc\n")
    device_keyring(tmp_path / "keys", [server.get("/signing-key.asc").data.decode()], "router")
    release = install.install_release(bundle, tmp_path / "keys", tmp_path / "opt")
    assert (tmp_path / "opt/current").resolve() == release
    assert (release / "share/notes-new").read_text() == "notes-new"
    assert not (release / "share/clock").exists()

    said = manifest.stored_description(release / manifest.PATH.decode())
    wish = Request("tiny", "1.1", "x86/64", "generic", ("motd", "notes-new"), diff_packages=True)
    assert ondemand.digest(wish) == built.body["request_hash"]
    ondemand.check(said.metadata, wish)
    with pytest.raises(Incompatible, match=r"made for the request [0-9a-f]{12}, but this device asked for"):
        ondemand.check(said.metadata, Request("tiny", "1.1", "x86/64", "generic", ("motd",), diff_packages=True))
    assert server.post("/api/upgrade-check", {**device, "version": "1.1", "installed": {
        "motd": "2", "notes-new": "3"}}).status == 204


def test_what_lies_beside_the_image(start: Start, tmp_path: Path) -> None:
    server = start()
    answer = server.build(packages=["clock"]).body
    names = {file["name"]: file for file in server.get(answer["files"]).body}
    bundle = answer["sysupgrade"]
    assert set(names) == {bundle, f"{bundle}.sbom.cdx.json", f"{bundle}.licences.txt", f"{bundle}.provenance.json",
                          bundle.replace(".tar.zst.gpg", ".manifest"), "sha256sums"}
    for name in names:
        (tmp_path / name).write_bytes(server.get(f"{answer['files']}{name}").data)
    subprocess.run(["sha256sum", "--check", "--strict", "sha256sums"], cwd=tmp_path, check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
    assert (tmp_path / bundle.replace(".tar.zst.gpg", ".manifest")).read_text() == "clock - 1\nmotd - 2\n"
    assert "overlay" in server.get(answer["log"]).data.decode()
    image = server.get(f"/api/image/{answer['image_hash']}").body
    assert image["request_hash"] == answer["request_hash"]
    assert server.get(f"/api/manifest/{image['manifest_hash']}").body == {"clock": "1", "motd": "2"}
