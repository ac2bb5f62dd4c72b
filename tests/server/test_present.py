"""The present-day API beside the documented one: what today's clients send, and read."""

import hashlib

from tests.server.serverprocess import Server

WISH = {"distro": "openwrt", "version": "24.10.0", "target": "ath79/generic", "profile": "acme_router"}


def test_from_the_overview_to_the_file(both: Server) -> None:
    overview = both.get("/json/v1/overview.json?distro=openwrt").body
    assert overview["latest"] == ["SNAPSHOT", "24.10.0", "23.05.5"]
    assert overview["server"]["allow_defaults"] is True
    branches = both.get("/json/v1/branches.json?distro=openwrt").body
    assert branches["24.10"]["package_changes"] == [
        {"source": "vim-tiny", "target": "vim", "mandatory": True, "revision": "24.10.0"},
        {"source": "kmod-ipv6", "mandatory": True, "revision": "24.10.0"}]
    assert both.get("/json/v1/latest.json?distro=tiny").body == {"latest": ["1.1", "1.0"]}
    release = "/json/v1/releases/24.10.0"
    boards = both.get(f"{release}/overview.json?distro=openwrt").body["profiles"]
    assert {"id": "acme_router", "target": "ath79/generic", "titles": [{"title": "ACME Router"}]} in boards
    target = f"{release}/targets/ath79/generic"
    assert both.get(f"{target}/index.json?distro=openwrt").body["packages"]["luci"] == "git-24.1"
    board = both.get(f"{target}/acme_router.json?distro=openwrt").body
    assert (board["default_packages"], board["device_packages"]) == (["base-files", "busybox"], ["kmod-wifi"])
    assert both.get("/api/v1/revision/24.10.0/ath79/generic?distro=openwrt").body == {"revision": "r100-abcdef"}

    asked = both.post("/api/v1/build", {**WISH, "packages": ["luci", "-kmod-wifi"], "client": "luci/git-24"})
    assert asked.status == 202
    assert set(asked.body) >= {"request_hash", "enqueued_at", "detail", "status"}
    assert asked.headers["X-Imagebuilder-Status"]
    done = both.wait(f"/api/v1/build/{asked.body['request_hash']}")
    assert done.status == 200
    assert done.body["manifest"] == {"base-files": "1-r100", "busybox": "1.36.1-1", "luci": "git-24.1",
                                     "uhttpd": "2023-1"}
    assert (done.body["version_number"], done.body["version_code"], done.body["titles"]) == (
        "24.10.0", "r100-abcdef", [{"title": "ACME Router"}])
    image = next(image for image in done.body["images"] if image["type"] == "sysupgrade")
    file = both.get(f"/store/{done.body['bin_dir']}/{image['name']}")
    assert hashlib.sha256(file.data).hexdigest() == image["sha256"]
    assert both.ask("HEAD", f"/api/v1/build/{asked.body['request_hash']}").status == 200


def test_what_a_client_may_ask_for(both: Server) -> None:
    def refused(status: int, error: str, **more: object) -> None:
        found = both.post("/api/v1/build", {**WISH, **more})
        if found.status == 202:
            found = both.wait(f"/api/v1/build/{found.body['request_hash']}")
        assert (found.status, found.body["error"]) == (status, error)

    refused(400, "the server has revision r100-abcdef of 24.10.0, not r1", version_code="r1")
    refused(400, "the server has version 9.0-1 of vim, not 8", packages_versions={"vim": "8"})
    refused(400, "rootfs_size_mb must be a whole number from 1 to 1024", rootfs_size_mb=2000)
    refused(400, "repositories other than the server's own are not allowed here", repositories={"a": "http://b"})
    refused(500, "Impossible package selection: vim-9.0-1: conflicts: vim-full; vim-full-9.0-1: conflicts: vim",
            packages=["vim", "vim-full"])
    assert both.get(f"/api/v1/build/{'0' * 64}").status == 404


def test_a_first_boot_script_is_in_the_image(both: Server) -> None:
    built = both.post("/api/v1/build", {**WISH, "packages": ["vim"], "defaults": "uci set system.a=b\n"})
    done = both.wait(f"/api/v1/build/{built.body['request_hash']}").body
    image = next(image for image in done["images"] if image["type"] == "sysupgrade")
    assert both.get(f"/store/{done['bin_dir']}/{image['name']}").data.endswith(b"uci set system.a=b\n")


def test_stats(both: Server) -> None:
    failed = both.post("/api/v1/build", {**WISH, "packages": ["broken"]})
    assert both.wait(f"/api/v1/build/{failed.body['request_hash']}").status == 500
    assert b" openwrt 24.10.0 ath79/generic acme_router: ImageBuilder failed" in both.get(
        "/api/v1/stats/build-errors").data
    assert both.get("/api/v1/stats").body == {"queue_length": 0}
    assert both.get("/api/v1/stats/summary").body["failed"] >= 1
    assert "vim" in both.get("/api/v1/stats/top-packages").body["labels"]
    days = both.get("/api/v1/stats/builds-per-day").body
    assert sum(days["datasets"][0]["data"]) == both.get("/api/v1/stats/image_stats").body["total"]
    assert both.get("/api/v1/stats/builds-by-version").body["labels"] == ["openwrt 24.10.0"]
