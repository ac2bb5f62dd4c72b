"""A browser's window onto a router's page, and requests that no browser would send."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
from process import PORT, Daemon

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = shutil.which("chromium")
URL = f"http://127.0.0.1:{PORT}"
PASSWORD = "correct horse"
LOOKS = (("light", "wide"), ("dark", "narrow"), ("light", "narrow"), ("dark", "wide"))
WIDTHS = {"wide": 1100, "narrow": 360}


@contextlib.contextmanager
def chromium(router: Daemon) -> Iterator["playwright.Browser"]:
    """Run a browser on the router itself, in its network namespace."""
    assert router.engine
    with router.engine.inside():
        running = playwright.sync_playwright().start()
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    try:
        yield browser
    finally:
        browser.close()
        running.stop()


class Window:
    """A window with one page; ``scripts`` False is a browser that runs none."""

    def __init__(self, browser: "playwright.Browser", pictures: Path, scripts: bool = True) -> None:
        # axe is put into the page as a script of its own, which the page's policy forbids
        self.context = browser.new_context(java_script_enabled=scripts, bypass_csp=scripts)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.pictures = pictures
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def go(self, path: str) -> None:
        self.page.goto(URL + path)

    def press(self, button: str) -> None:
        """Press a button, or follow a link that looks like one."""
        self.page.click(f".button:text-is('{button}'), button:text-is('{button}')")

    def text(self) -> str:
        return self.page.inner_text("main")

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.page.fill(f"[name={name}]", value)

    def log_in(self, name: str = "admin", password: str = PASSWORD) -> None:
        self.go("/login")
        self.fill(name=name, password=password)
        self.press("Log in")

    def look(self, name: str) -> None:
        """Take pictures, and look whether everybody can read and use the page.

        They are in light and wide, and in dark and narrow; in all four ways where they are kept.
        """
        for scheme, width in LOOKS if "SCREENSHOTS" in os.environ else LOOKS[:2]:
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size({"width": WIDTHS[width], "height": 780})
            picture = self.pictures / f"{name}-{scheme}-{width}.png"
            self.page.screenshot(path=picture, full_page=True)
            assert picture.stat().st_size > 5000
            assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), picture.stem
            found = axe.Axe().run(self.page).response["violations"]
            assert not found, (picture.stem, [(one["id"], one["nodes"][0]["html"]) for one in found])
        self.page.set_viewport_size({"width": WIDTHS["wide"], "height": 780})
        assert self.errors == []


@dataclass
class Client:
    """Sends single requests from an address of the router's loopback interface; keeps cookies as a browser does."""

    router: Daemon
    address: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, fields: dict[str, str] | None = None,
            headers: dict[str, str] | None = None, **more: Any) -> urllib3.BaseHTTPResponse:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(headers or {})}
        if fields is not None:
            more |= {"fields": fields, "encode_multipart": False}
        assert self.router.engine
        with self.router.engine.inside(), urllib3.PoolManager(source_address=(self.address, 0)) as pool:
            answer = pool.request(method, URL + path, headers=sent, redirect=False, retries=False, timeout=20, **more)
        for cookie in answer.headers.getlist("Set-Cookie"):
            name, value = cookie.partition(";")[0].split("=", 1)
            self.cookies[name] = value.strip('"')
        return answer

    def log_in(self, name: str = "admin", password: str = PASSWORD) -> urllib3.BaseHTTPResponse:
        return self.ask("POST", "/login", {"name": name, "password": password})

    def key(self, path: str = "/router") -> str:
        """Return what the forms of a page carry."""
        found = re.search(r'name="key" value="(\w+)"', self.ask("GET", path).data.decode())
        assert found
        return found[1]

    def send(self, path: str, key: str | None = None, **fields: str) -> urllib3.BaseHTTPResponse:
        """Send a form as the page would."""
        return self.ask("POST", path, {"key": self.key() if key is None else key, **fields})
