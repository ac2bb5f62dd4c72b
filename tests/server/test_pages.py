"""The pages in a real browser (Chromium, headless): choose, see what contradicts itself, build, watch, download.

Each page is looked at in light and dark, wide and narrow, by axe (WCAG) and for what does not fit the window; with
SCREENSHOTS=DIR in the environment the pictures are kept.
"""

import hashlib
import html
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.serverprocess import Server
from tests.server.test_on_demand import Router

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
LOOKS = {"light-wide": ("light", 1100), "dark-narrow": ("dark", 360)}


class Window:
    """A browser's window with one page."""

    def __init__(self, page: "playwright.Page", server: Server, pictures: Path, look: str) -> None:
        self.page = page
        self.server = server
        self._pictures = pictures
        self._look = look
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def go(self, path: str) -> None:
        self.page.goto(self.server.url + path)

    def look_at(self, name: str) -> None:
        """Take a picture, and look whether everybody can read the page."""
        picture = self._pictures / f"{name}-{self._look}.png"
        self.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 5000
        found = axe.Axe().run(self.page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is too wide"
        assert self.errors == []


@pytest.fixture(scope="module")
def chromium() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=LOOKS)
def window(request: pytest.FixtureRequest, chromium: "playwright.Browser", shared: Server,
           tmp_path: Path) -> Iterator[Window]:
    scheme, width = LOOKS[request.param]
    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    # axe is put into the page as a script of its own, which the page's policy forbids
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    context.set_default_timeout(60_000)
    yield Window(context.new_page(), shared, pictures, request.param)
    context.close()


def test_from_the_first_page_to_the_download(window: Window) -> None:
    page = window.page
    window.go("/")
    window.look_at("start")
    page.click("text=tiny 1.1")
    window.look_at("boards")
    page.click("text=A PC")
    assert page.is_checked("input[value=motd]")
    window.look_at("packages")

    page.check("input[value=clock]")
    page.check("input[value=notes-new]")
    page.wait_for_selector("#verdict >> text=These can't be together")
    assert page.inner_text("#verdict li") == "clock conflicts with notes-new"
    window.look_at("conflict")
    page.uncheck("input[value=notes-new]")
    page.wait_for_selector("text=The image will have clock 1, motd 2.")

    page.click("button:text('Build')")
    page.wait_for_selector("text=Download tiny-1.1")
    window.look_at("built")
    with page.expect_download() as started:
        page.click("a.button")
    bundle = Path(started.value.path())
    assert page.inner_text("code.wrap") == hashlib.sha256(bundle.read_bytes()).hexdigest()
    window.go("/builds")
    window.look_at("builds")


def test_without_scripts(chromium: "playwright.Browser", shared: Server) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{shared.url}/choose?release=tiny/1.1&board=x86/64/generic")
    page.check("input[value=clock]")
    page.check("input[value=notes-new]")
    page.click("button:text('Check')")
    assert page.inner_text("#verdict li") == "clock conflicts with notes-new"
    assert page.is_checked("input[value=clock]")
    page.uncheck("input[value=clock]")
    page.click("button:text('Build')")
    page.wait_for_selector("text=Download tiny-1.1", timeout=60_000)
    context.close()


def test_a_build_that_fails_says_why(window: Window) -> None:
    window.go("/choose?release=tiny/1.1&board=x86/64/generic")
    window.page.check("input[value=broken]")
    window.page.wait_for_selector("#verdict >> text=is-not-there")
    window.page.click("button:text('Build')")
    window.page.wait_for_selector("text=There is no image")
    window.look_at("failed")


@pytest.mark.parametrize(("path", "status", "text"), [
    ("/choose?release=tiny/9", 404, "there is no release 'tiny/9'"),
    ("/choose?release=tiny/1.1&board=x86/64/toaster", 404, "there is no board 'x86/64/toaster'"),
    ("/choose?release=tiny/1.1&board=x86/64/generic&chosen=1&package=%3Cb%3E", 400, "there is no package '<b>'"),
    ("/choose?release=%ff", 400, "the form can't be read"),
    (f"/builds/{'0' * 64}", 404, "this build is not known (any more)"),
])
def test_what_is_not_there_is_said_on_a_page(shared: Server, path: str, status: int, text: str) -> None:
    answer = shared.get(path)
    assert answer.status == status
    assert text in html.unescape(answer.data.decode())
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_what_contradicts_itself_is_not_built(shared: Server) -> None:
    answer = shared.ask("POST", "/builds", raw=b"release=tiny/1.1&board=x86/64/generic&package=clock&package=notes-new")
    assert answer.status == 409
    assert "clock conflicts with notes-new" in answer.data.decode()


def test_a_router_is_led_from_its_page(window: Window) -> None:
    page, server = window.page, window.server
    come = server.post("/api/visits", {
        "distro": "tiny", "version": "1.0", "target": "x86/64", "board": "pc", "name": "attic",
        "installed": {"motd": "1", "notes": "1", "old": "1"}, "request": _built_before(server)}).body
    page.goto(come["page"])
    window.look_at("router")
    page.uncheck("input[value=motd]")
    page.click("button:text('Build tiny 1.1 for it')")
    page.wait_for_selector("text=Upgrade the router now")
    assert page.inner_text("tbody tr") == "image-files\tcomponent\t1.0\t1.1"
    window.look_at("router-built")
    page.click("button:text('Upgrade the router now')")
    page.wait_for_selector("text=Told the router")
    api = f"/api/visits/{come['token']}"
    server.ask("POST", api, {"stage": "installing", "text": "unpacking"})
    page.wait_for_selector("text=unpacking")
    server.ask("POST", api, {"stage": "done", "text": "tiny-1.1 is in use"})
    page.wait_for_selector("text=The router runs the new release")
    window.look_at("router-done")


def test_a_router_is_upgraded_from_its_page(chromium: "playwright.Browser", shared: Server, tmp_path: Path) -> None:
    router = Router(tmp_path, shared)
    page = chromium.new_page()
    with router.popen("--page") as process:
        assert process.stdout
        address = re.search(r"decide on (\S+/router/\S+)", process.stdout.readline())
        assert address
        page.goto(address[1])
        assert page.is_checked("input[value=notes-new]")
        page.check("input[value=big]")
        page.click("button:text('Build tiny 1.1 for it')")
        page.click("text=Upgrade the router now", timeout=60_000)
        page.wait_for_selector("text=The router runs the new release", timeout=60_000)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert router.files() == {"big": "big" * 6 + "bi", "motd": "motd", "notes-new": "notes-new"}
    assert "updated to tiny-1.1-" in page.inner_text(".good")

    with router.popen("--page") as process:
        assert process.stdout
        address = re.search(r"decide on (\S+/router/\S+)", process.stdout.readline())
        assert address
        page.goto(address[1])
        assert "The router has the newest there is." in page.inner_text("main")
        page.check("input[value=sick]")
        page.click("button:text('Build tiny 1.1 for it')")
        page.click("text=Upgrade the router now", timeout=60_000)
        page.wait_for_selector("text=The router did not upgrade", timeout=60_000)
        process.communicate(timeout=60)
    assert process.returncode == 3
    assert "is in use again" in page.inner_text(".problem")
    page.close()


def _built_before(server: Server) -> str:
    """Have the image built that the router runs, and return the hash of its request."""
    return str(server.build(version="1.0", packages=["motd", "notes"]).body["request_hash"])
