"""The fleet's pages in a window of a real browser (Chromium, headless).

With SCREENSHOTS=DIR in the environment the pictures are kept, in light and dark, wide and narrow.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.serverprocess import Server

if TYPE_CHECKING:
    from playwright import sync_api as playwright

LOOKS = (("light", 1100), ("dark", 360), ("light", 360), ("dark", 1100))


class Window:
    """A window of a browser with one page of the fleet."""

    def __init__(self, browser: "playwright.Browser", server: Server, pictures: Path, *, scripts: bool) -> None:
        self.context = browser.new_context(java_script_enabled=scripts, bypass_csp=scripts)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.server, self.pictures = server, pictures

    def go(self, path: str) -> None:
        self.page.goto(self.server.url + path)

    def text(self) -> str:
        return self.page.inner_text("main")

    def press(self, button: str) -> None:
        self.page.click(f"button:text-is('{button}'), a.button:text-is('{button}')")

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.page.fill(f"#{name}", value)

    def log_in(self, name: str, password: str) -> None:
        self.go("/fleet/login")
        self.fill(name=name, password=password)
        self.press("Log in")

    def look(self, name: str) -> None:
        from axe_playwright_python.sync_playwright import Axe

        for scheme, width in LOOKS if "SCREENSHOTS" in os.environ else LOOKS[:2]:
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size({"width": width, "height": 780})
            self.page.screenshot(path=self.pictures / f"{name}-{scheme}-{width}.png", full_page=True)
            assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, width)
            found = Axe().run(self.page).response["violations"]
            assert not found, (name, scheme, [(one["id"], one["nodes"][0]["html"]) for one in found])


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed")
    with api.sync_playwright() as running_browser:
        found = running_browser.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def window(browser: "playwright.Browser", server: Server, tmp_path: Path) -> Iterator[Window]:
    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    one = Window(browser, server, pictures, scripts=True)
    yield one
    one.context.close()


@pytest.fixture
def plain(browser: "playwright.Browser", server: Server, tmp_path: Path) -> Iterator[Window]:
    one = Window(browser, server, tmp_path, scripts=False)
    yield one
    one.context.close()
