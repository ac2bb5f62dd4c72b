"""The documented API, row by row: status codes, headers and keys of the answers, for clients of several generations."""

import hashlib
import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pdimage.server import answers
from pdimage.server.entries import Entry, Failure, State
from tests.server.conftest import Start
from tests.server.serverprocess import Server, request, wait_until

DEVICE = {"distro": "tiny", "version": "1.0", "target": "x86", "subtarget": "64", "installed": {"motd": "1"}}
OPENWRT = {"distro": "openwrt", "version": "24.10.0", "target": "ath79/generic", "board": "acme_router"}
LOG = {"log": str}
TOO_BIG = re.compile(r"Selected packages exceed device storage: the image is too big for ACME AP 1: it has 6\d{5} "
                     r"bytes, \d{5} more than the 600000 that fit; leave packages out")


@dataclass(frozen=True)
class Case:
    """A question and its answer. ``body`` and ``headers`` are what must be in it; a type stands for any such value."""

    question: dict[str, Any]
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def without(question: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in question.items() if key != name}


CHECKS = {
    "a newer version": Case(DEVICE, 200, {"version": "1.1", "packages": ["motd"], "upgrades": {"motd": ["2", "1"]}}),
    "distribution in capitals": Case({**DEVICE, "distro": "TINY"}, 200, {"version": "1.1"}),
    "without packages": Case(without(DEVICE, "installed"), 200, {"version": "1.1", "packages": [], "upgrades": {}}),
    "without version": Case(without(DEVICE, "version"), 200, {"version": "1.1"}),
    "target in one word": Case({**without(DEVICE, "subtarget"), "target": "x86/64"}, 200, {"version": "1.1"}),
    "packages of auc 0.0.9": Case({**without(DEVICE, "installed"), "packages": {"motd": "1"}}, 200,
                                  {"packages": ["motd"], "upgrades": {"motd": ["2", "1"]}}),
    "a renamed and a dropped package": Case(
        {**DEVICE, "installed": {"notes": "1", "old": "1"}}, 200,
        {"packages": ["notes-new"], "upgrades": {"notes-new": ["3", "1"]},
         "changes": {"renamed": {"notes": "notes-new"}, "dropped": {"old": "nobody liked it"}}}),
    "what comes with every image": Case({**DEVICE, "installed": {"libc": "1", "kernel": "5", "libgcc1": "1"}}, 200,
                                        {"packages": []}),
    "newer packages alone": Case({**DEVICE, "version": "1.1", "installed": {"motd": "1"}}, 200,
                                 {"version": "1.1", "upgrades": {"motd": ["2", "1"]}}),
    "nothing new": Case({**DEVICE, "version": "1.1", "installed": {"motd": "2"}}, 204,
                        headers={"X-Request-Hash": "*"}),
    "newer than the server": Case({**DEVICE, "version": "1.1", "installed": {"motd": "3"}}, 204),
    "a successor by what else is there": Case(
        {**OPENWRT, "version": "23.05.5", "installed": {"luci": "git-24.1"}}, 200,
        {"version": "24.10.0", "packages": ["luci"], "upgrades": {}}),
    "a snapshot stays one": Case({**OPENWRT, "version": "SNAPSHOT", "installed": {"vim": "9.0-1"}}, 204),
    "unknown distribution": Case({**DEVICE, "distro": "lede"}, 400, {"error": "unknown distribution 'lede'"}),
    "unknown version": Case({**DEVICE, "version": "9"}, 400, {"error": "unknown version '9'"}),
    "unknown target": Case({**DEVICE, "subtarget": "63"}, 400, {"error": "unknown target 'x86/63'"}),
    "no distribution": Case(without(DEVICE, "distro"), 400, {"error": "distro is missing"},
                            {"X-Missing-Param": "distro"}),
    "unknown packages": Case({**DEVICE, "installed": {"emacs": "1", "vi": "2", "motd": "1"}}, 422,
                             {"error": "could not find packages: emacs, vi"}, {"X-Unknown-Package": "emacs, vi"}),
}

REQUESTS = {
    "board by its own name": Case(request(board="pc"), 200, {"sysupgrade": "*.tar.zst.gpg"}),
    "board by its model": Case(request(board="new-pc", model="a pc"), 200, {"sysupgrade": "*.tar.zst.gpg"}),
    "comma in the board": Case({**OPENWRT, "board": "acme,router"}, 200, {"sysupgrade": "*-squashfs-sysupgrade.bin"}),
    "packages with versions": Case(request(packages={"motd": "1"}), 200, {"sysupgrade": "*.tar.zst.gpg"}),
    "version left to the server": Case(without(request(), "version"), 200, {"sysupgrade": "*.tar.zst.gpg"}),
    "defaults": Case(request(defaults="echo hello"), 200, {"sysupgrade": "*.tar.zst.gpg"}),
    "no image to install": Case({**OPENWRT, "board": "acme_factory", "packages": ["vim"]}, 200, {"files": str}),
    "too big": Case(request(target="ath79/generic", board="acme_ap-1", packages=["big", "motd"]), 413, {
        **LOG, "error": TOO_BIG}),
    "too big, says the ImageBuilder": Case({
        **OPENWRT, "board": "acme_small", "packages": ["vim", "luci", "busybox"]}, 413, {
        **LOG, "error": "Selected packages exceed device storage: the image is too big for ACME Small: it has 2500 "
                        "bytes, 500 more than the 2000 that fit; leave packages out"}),
    "packages in each other's way": Case(request(packages=["clock", "notes-new"]), 409, {
        "error": "Impossible package selection: clock conflicts with notes-new"}),
    "impossible, says the ImageBuilder": Case({**OPENWRT, "packages": ["vim", "vim-full"]}, 409, {
        **LOG, "error": "Impossible package selection: vim-9.0-1: conflicts: vim-full; vim-full-9.0-1: conflicts: "
                        "vim"}),
    "a need that can't be met": Case({**OPENWRT, "packages": ["needs-nothing-there"]}, 409, {
        **LOG, "error": "Impossible package selection: not-there (no such package): required by: world[not-there]"}),
    "unknown package": Case(request(packages=["emacs"]), 422, {"error": "could not find packages: emacs"},
                            {"X-Unknown-Package": "emacs"}),
    "build failed": Case({**OPENWRT, "packages": ["broken"]}, 500, {
        **LOG, "error": re.compile("ImageBuilder failed to create image:\n.*cannot make broken.*", re.DOTALL)}),
    "defaults too long": Case(request(defaults="x" * 10_001), 420, {
        "error": "attached defaults exceed max size of 10000 bytes"}),
    "unknown board": Case({**OPENWRT, "board": "other"}, 400, {
        "error": "unknown device, please check model and board params"}),
    "other versions than there are": Case(request(packages_versions={"motd": "1"}), 400, {
        "error": "the server has version 2 of motd, not 1"}),
}


def fits(found: Any, wanted: Any) -> bool:
    """Whether a value is the one that is wanted: equal, of the type, or with the ending."""
    if isinstance(wanted, re.Pattern):
        return isinstance(found, str) and wanted.fullmatch(found) is not None
    if isinstance(wanted, type):
        return isinstance(found, wanted) and bool(found)
    if isinstance(wanted, str) and wanted.startswith("*"):
        return isinstance(found, str) and found.endswith(wanted[1:])
    return bool(found == wanted)


def check(case: Case, found: Any) -> None:
    assert found.status == case.status, found.data
    for name, wanted in case.headers.items():
        assert fits(found.headers.get(name), wanted), (name, found.headers)
    body = {} if found.status == 204 else found.body
    for name, wanted in case.body.items():
        assert fits(body.get(name), wanted), (name, body)
    assert found.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("name", CHECKS)
def test_upgrade_check(both: Server, name: str) -> None:
    check(CHECKS[name], both.post("/api/upgrade-check", CHECKS[name].question))


@pytest.mark.parametrize("name", REQUESTS)
def test_build_request(both: Server, name: str) -> None:
    asked = both.post("/api/build-request", REQUESTS[name].question)
    if asked.status == 202:
        assert len(asked.body["request_hash"]) == 64
        asked = both.wait(f"/api/build-request/{asked.body['request_hash']}")
    check(REQUESTS[name], asked)
    if asked.status == 200:
        assert both.post("/api/build-request", REQUESTS[name].question).body == asked.body


def test_an_upgrade_request_without_an_image_to_install_is_501(both: Server) -> None:
    question = {**OPENWRT, "board": "acme_factory", "packages": ["vim"]}
    digest = both.build(**question).body["request_hash"]
    for found in (both.post("/api/upgrade-request", question), both.get(f"/api/upgrade-request/{digest}")):
        assert found.status == 501
        assert found.body["error"] == "No sysupgrade file produced, may not supported by model."
        assert both.get(found.body["log"]).data.startswith(b"vim - 9.0-1\n")


@pytest.mark.parametrize(("state", "stage", "status", "header"), [
    ("queued", "", 202, "queue"), ("building", "initialize", 202, "initialize"),
    ("building", "building", 202, "building"), ("building", "signing", 202, "building")])
def test_the_words_that_auc_knows(state: State, stage: str, status: int, header: str) -> None:
    entry = Entry("0" * 64, None, state, stage, place=7)  # type: ignore[arg-type]
    said = answers.documented(entry, upgrade=True, prefix="", linked=True)
    assert (said.status, said.headers["X-Imagebuilder-Status"]) == (status, header)
    assert said.headers.get("X-Build-Queue-Position") == ("7" if state == "queued" else None)


@pytest.mark.parametrize(("failure", "status"), [
    ("impossible", 409), ("too-big", 413), ("unknown", 422), ("failed", 500), ("lost", 500)])
def test_each_failure_has_its_status(failure: Failure, status: int) -> None:
    said = answers.documented(Entry("0" * 64, None, "failed", failure=failure, error="why"),  # type: ignore[arg-type]
                              upgrade=True, prefix="", linked=True)
    assert (said.status, said.body["error"]) == (status, "why")


def test_the_queue_is_told_and_its_end_is_503(start: Start) -> None:
    server = start("--no-worker", queue_limit=3, client_queue=10, retry_after=120)
    places = [server.post("/api/upgrade-request", request(packages=packages)) for packages in (
        ["motd"], ["clock"], ["big"], ["motd"])]
    assert [(one.status, one.headers["X-Imagebuilder-Status"], one.headers["X-Build-Queue-Position"])
            for one in places] == [(202, "queue", "0"), (202, "queue", "1"), (202, "queue", "2"), (202, "queue", "0")]
    full = server.post("/api/upgrade-request", request(packages=["slow"]))
    assert (full.status, full.headers["Retry-After"]) == (503, "120")
    assert full.body["error"] == "the server has too much to build; try again in 120 seconds"
    assert server.get(f"/api/upgrade-request/{places[1].body['request_hash']}").headers["X-Build-Queue-Position"] == "1"
    assert server.get(f"/api/upgrade-request/{'0' * 64}").status == 404
    assert server.get("/api/v1/stats").body == {"queue_length": 3}


@pytest.fixture(scope="module")
def image(both: Server) -> dict[str, Any]:
    """What is told of an image that was built."""
    answer: dict[str, Any] = both.build(packages=["clock"], defaults="echo hello").body
    return answer


def test_the_sysupgrade_is_a_link_or_a_name_as_each_client_needs_it(both: Server) -> None:
    old = {**without(request(), "version"), "target": "x86", "subtarget": "64"}
    digest = both.build().body["request_hash"]
    path = f"/api/upgrade-request/{digest}"
    name = both.build().body["sysupgrade"]
    assert "/" not in name
    link = f"{both.url}/store/{digest}/{name}"
    assert both.post("/api/upgrade-request", old).body["sysupgrade"] == link
    assert both.get(path, **{"User-Agent": "auc/0.0.9"}).body["sysupgrade"] == link
    assert both.get(path, **{"User-Agent": "auc/0.1.4"}).body["sysupgrade"] == name
    # auc 0.1.4 puts the address together from `files`, with two slashes
    files = both.get(path).body["files"]
    whole = both.get(link)
    assert whole.headers["Content-Length"] == str(len(whole.data))
    assert both.get(f"//{files}/{name}").data == whole.data
    sums = both.get(f"{files}sha256sums").data.decode()
    assert f"{hashlib.sha256(whole.data).hexdigest()} *{name}\n" in sums


def test_auc_sends_chunks_of_text_json(both: Server) -> None:
    def chunks() -> Iterator[bytes]:
        text = json.dumps(DEVICE).encode()
        yield text[:10]
        yield text[10:]

    connection = http.client.HTTPConnection(both.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/api/upgrade-check", chunks(), {"Content-Type": "text/json"}, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["version"]) == (200, "1.1")
    connection.close()


def test_pages_of_other_origins_may_ask(both: Server) -> None:
    asked = both.ask("OPTIONS", "/api/upgrade-request", headers={
        "Origin": "http://192.168.1.1", "Access-Control-Request-Method": "POST"})
    assert asked.status == 204
    assert asked.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, OPTIONS"
    exposed = asked.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Imagebuilder-Status", "X-Build-Queue-Position", "X-Unknown-Package"} <= set(exposed)


def test_an_image_its_manifest_and_its_files(both: Server, image: dict[str, Any]) -> None:
    found = both.get(f"/api/image/{image['image_hash']}").body
    assert set(found) >= {
        "image_hash", "distro", "distro_alias", "version", "version_alias", "target", "profile", "model",
        "manifest_hash", "defaults_hash", "worker", "build_date", "sysupgrade", "image_status", "vanilla",
        "build_seconds", "snapshots", "cache_hits", "files"}
    assert (found["distro"], found["version"], found["target"], found["profile"], found["model"]) == (
        "tiny", "1.1", "x86/64", "generic", "A PC")
    assert found["defaults_hash"] == hashlib.sha256(b"echo hello").hexdigest()
    assert (found["vanilla"], found["image_status"], found["files"]) == (False, "created", image["files"])
    assert both.get(f"/api/manifest/{found['manifest_hash']}").body == {"clock": "1", "motd": "2"}
    listed = both.get(found["files"]).body
    assert image["sysupgrade"] in [file["name"] for file in listed]
    assert both.get(f"/api/image/{'0' * 64}").status == 404
    assert both.get("/api/manifest/abc").status == 404


def test_what_can_be_built(both: Server) -> None:
    assert [(one["name"], one["latest"], one["description"]) for one in both.get("/api/distros").body] == [
        ("tiny", "1.1", "Images of a few files"), ("openwrt", "24.10.0", "")]
    assert list(both.get("/api/distributions").body["openwrt"]["versions"]) == ["23.05.5", "24.10.0", "SNAPSHOT"]
    assert [(one["distro"], one["version"]) for one in both.get("/api/versions?distro=tiny").body] == [
        ("tiny", "1.0"), ("tiny", "1.1")]
    assert len(both.get("/api/versions").body) == 5
    assert both.get("/api/models?distro=tiny&version=1.1&model_search=acme").body == [
        {"distro": "tiny", "version": "1.1", "target": "ath79/generic", "profile": "acme_ap-1", "model": "ACME AP 1"}]
    assert [one["model"] for one in both.get("/api/models?distro=openwrt&version=24.10.0&model_search=").body] == [
        "ACME Router", "ACME Small", "ACME Factory"]
    assert both.get("/api/models?distro=tiny").status == 400
    assert both.get("/api/packages_image?distro=tiny&version=1.1&target=x86&subtarget=64&profile=generic").body == [
        "motd"]
    assert both.get("/api/packages_image?distro=openwrt&version=24.10.0&target=ath79/generic&profile=acme_router"
                      ).body == ["base-files", "busybox", "kmod-wifi"]


def test_stats(both: Server, image: dict[str, Any]) -> None:
    popular = {one["package_name"]: one["count"] for one in both.get("/api/v1/stats/popular_packages").body}
    assert popular["clock"] >= 1
    targets = both.get("/api/v1/stats/popular_targets").body
    assert {"tiny 1.1 x86/64"} <= {one["target"] for one in targets}
    assert both.get("/api/v1/stats/packages").body["packages"] == 19
    numbers = both.get("/api/v1/stats/image_stats").body
    assert numbers["total"] == numbers["stored"] > 0
    stats = both.get("/api/v1/stats/images").body
    assert (stats["stored"], len(stats["images"])) == (numbers["stored"], numbers["stored"])
    latest = both.get("/api/v1/stats/images_latest").body
    assert latest[0]["build_date"] >= latest[-1]["build_date"]
    hits = f"/api/image/{image['image_hash']}"
    before = both.get(hits).body["cache_hits"]
    for _ in range(3):
        both.build(packages=["clock"], defaults="echo hello")
    both.build(packages=["motd"])
    wait_until(lambda: both.build(packages=["clock"], defaults="echo hello")
               and both.get(hits).body["cache_hits"] >= before + 3)
