"""The page of a daemon that no firmware has brought, and what it costs the daemon to show it."""

import html
import re
from pathlib import Path

import urllib3
from process import Daemon, running

from tests.server.parts import free_port

PASSWORD = "correct horse"


def test_without_a_firmware_the_page_says_so_and_the_daemon_stays_small(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    port = free_port()
    daemon = Daemon(tmp_path, settings={
        "PDFCD_PORT": str(port), "FIRMWARE_TARGET": f"{tmp_path}/opt", "FIRMWARE_SETTINGS": f"{tmp_path}/update.toml",
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    with running(daemon):
        pool = urllib3.PoolManager(retries=False, timeout=30)
        url = f"http://127.0.0.1:{port}"
        before = daemon.memory()
        first = pool.request("POST", url + "/first", fields={"name": "admin", "password": PASSWORD, "again": PASSWORD},
                             encode_multipart=False, redirect=False)
        assert (first.status, first.headers["Location"]) == (303, "/")
        session = {"Cookie": first.headers["Set-Cookie"].partition(";")[0]}

        def page(path: str) -> str:
            answer = pool.request("GET", url + path, headers=session, redirect=False)
            assert answer.status == 200, path
            return html.unescape(answer.data.decode())

        assert "This router was not installed from a firmware." in page("/")
        firmware = page("/firmware")
        assert f"There are no releases in <code>{tmp_path}/opt</code>" in firmware
        assert "Upgrade now" not in firmware
        key = re.search(r'name="key" value="(\w+)"', firmware)
        assert key
        for action in ("upgrade", "hold", "window", "previous"):
            answer = pool.request("POST", f"{url}/firmware/{action}", headers=session, encode_multipart=False,
                                  fields={"key": key[1], "window": "02:00-05:00"})
            said = answer.data.decode().lower()
            assert (answer.status, "cannot" in said or "no releases" in said) == (409, True), action
        assert "This router belongs to no server." in page("/")
        assert "None is installed." in page("/")
        assert "No wireless network is configured." in page("/network")
        for path in ("/chutes", "/router", "/router/reset"):
            page(path)
        assert daemon.memory() < 60
        assert daemon.memory() - before < 12

        (tmp_path / "opt/.fussy").mkdir()
        (tmp_path / "opt/current").mkdir()
        assert "it is not a symbolic link" in page("/firmware")
        (tmp_path / "opt/current").rmdir()
        (tmp_path / "update.toml").write_text("product = 7\n")
        assert "cannot use" in page("/firmware")
    assert "Traceback" not in daemon.log()
