"""What the README of the build server shows is what happens, and its settings are all there are."""

import json
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

import pdimage.server
from pdimage.server.settings import Settings
from tests.fussy.machine import private_machine
from tests.server.conftest import Start
from tests.server.serverprocess import request, wait_until

README = Path(str(pdimage.server.__file__)).with_name("README.rst").read_text()


def section(title: str) -> str:
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^[^\n]+\n-{{4,}}\n|\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README has no section {title!r}"
    return found[1]


def commands(text: str) -> list[tuple[str, str]]:
    """Return each command of a text with what it is said to print."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], ""))
        elif line.startswith("    > "):
            found[-1] = (f"{found[-1][0]}\n{line[6:]}", "")
        elif line.startswith("    ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line[4:]}\n")
    return found


@pytest.mark.slow
def test_try_it() -> None:
    """Word for word, in an empty directory, with the example catalogue; a router of its own asks and installs."""
    text = section("Try it")
    settings = re.search(r"update.toml``::\n\n(.*?)\n\nThat is", text, re.DOTALL)
    assert settings
    (serve, answers), *steps = commands(text.replace(settings[0], ""))
    assert len(steps) == 7
    with private_machine("/etc/fussy/keys", "/tmp/home/build-server/keys") as machine:
        machine.run("for place in /var/lib /usr/local/bin; do mount -t tmpfs private $place; done; mkdir -p /etc/fussy")
        machine.run(f"cat > /etc/fussy/update.toml <<'E'\n{settings[1].replace('    ', '')}\nE")
        with subprocess.Popen(machine.argv(f"exec {serve}"), env=machine.env, stdout=subprocess.PIPE, text=True,
                              stdin=subprocess.DEVNULL) as server:
            try:
                assert server.stdout
                assert server.stdout.readline() == answers
                shown = ""
                for command, said in steps:
                    if not command.startswith("fussy update"):
                        shown = machine.run(command).stdout
                        told = re.sub(r"[0-9A-F]{40}|[0-9a-f]{64}", "HASH", shown)
                        wanted = re.sub(r"[0-9A-F]{40}|[0-9a-f]{64}", "HASH", said)
                        if told.startswith("{"):
                            assert json.loads(told) == json.loads(wanted)
                        else:
                            assert told == wanted
                        continue
                    last = machine.type(command).splitlines()[-1]
                    assert masked(last) == masked(said.splitlines()[-1])
                release = machine.run("cat /opt/firmware/current/.fussy/release.json").stdout
                assert json.loads(release)["version"] == "1.1"
            finally:
                server.terminate()
                server.wait(30)


def masked(line: str) -> str:
    """Return a line without what differs from build to build."""
    return re.sub(r"-[0-9a-f]{12} |\d+\.\d MB", "X", line)


def test_settings_are_all_there_with_their_defaults() -> None:
    rows = dict(re.findall(r"^``(\w+)`` +(?:``([^`]*)``  +)?\S", section("Settings"), re.MULTILINE))
    known = {}
    for field in msgspec.structs.fields(Settings):
        value = field.default if field.default is not msgspec.NODEFAULT else ""
        known[field.name] = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(
            value, float) else str(value or "")
    known = {name: "" if value in ("()", "{}") else value for name, value in known.items()}
    assert rows == known


def test_statuses_are_those_of_the_documents_and_few_more() -> None:
    rows = {int(status) for status in re.findall(r"^(\d{3})  ", section("The API"), re.MULTILINE)}
    assert rows == {200, 202, 204, 400, 413, 420, 422, 500, 501, 503} | {404, 409, 429}


def test_an_image_whose_packages_have_newer_versions_is_built_anew(start: Start, tmp_path: Path) -> None:
    server = start()
    digest = server.build().body["request_hash"]
    catalogue = tmp_path / "catalogue/catalogue.yaml"
    text = catalogue.read_text()
    catalogue.write_text(text.replace("version: '2'", "version: '2.1'"))
    wait_until(lambda: server.post("/api/build-request", request()).status == 202)
    anew = server.wait(f"/api/build-request/{digest}").body
    assert server.get(f"/api/manifest/{anew['manifest_hash']}").body == {"motd": "2.1"}
