"""What the README shows is what happens, and what it lists is all there is."""

import inspect
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from docutils.utils import Reporter

from fussy import cli, enable, errors, hooks, manifest
from fussy.target import Target
from tests.fussy.machine import Machine, private_machine

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.rst").read_text()


def section(title: str, text: str = README) -> str:
    """Return the text of a section."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^[^\n]+\n-{{4,}}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found[1]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the code blocks in TEXT with the lines that it is said to print."""
    command, shown = "", []
    for line in text.replace("\\\n     ", "").splitlines():
        if line.startswith("    $ ") or not line.startswith("    "):
            if command:
                yield command, shown
            command, shown = (line[6:], []) if line.startswith("    $ ") else ("", [])
        else:
            shown.append(line[4:])
    if command:
        yield command, shown


def masked(line: str) -> str:
    """Return a line without what differs from day to day, or from key to key."""
    return re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\dZ)?|\b\d+ B\b|\b[0-9a-f]{16,64}\b", "…", line)


def cut(said: list[str], shown: list[str]) -> list[str]:
    """Cut lines off where it is shown that they go on (…)."""
    ends = [len(line) - 1 if line.endswith("…") else None for line in shown]
    return [line[:end] + "…" if end else line for line, end in zip_longest(said, ends[:len(said)])]


def walk(text: str, machine: Machine) -> tuple[int, int]:
    """Run the commands in TEXT and compare what they print; return how many there were, and how many keys they made."""
    known: dict[str, str] = {}
    exports = ""
    steps = list(commands(text))
    for command, shown in steps:
        for sample, real in known.items():
            command = command.replace(sample, real)
        if command.startswith("export "):
            exports += command + "\n"
            continue
        printed = machine.run(f"exec 2>&1\n{exports}{command}", fails=60 if "cannot publish yet" in str(shown) else 0)
        said = printed.stdout.replace("/tmp/home/", "/home/build/").splitlines()
        for expected, real in zip(shown, said, strict=False):
            known.update(zip(*(re.findall(r"\b[0-9A-F]{40}\b", line) for line in (expected, real)), strict=True))
        for sample, real in known.items():
            shown = [line.replace(sample, real) for line in shown]
        assert list(map(masked, cut(said, shown))) == list(map(masked, shown)), command
    return len(steps), len(known)


def test_the_examples_show_what_happens() -> None:
    text = "".join(map(section, ("Quick start", "On trial", "Looking after itself")))
    with private_machine("build-keys", "keys", "/etc/fussy/keys") as machine:
        assert walk(text, machine) == (32, 2)


def test_the_page_about_publishing_shows_what_happens() -> None:
    page = (ROOT / "fussy/publishing/README.rst").read_text()
    with private_machine("build-keys", "keys", "channel.private/keyring") as machine:
        assert walk(section("A first channel", page) + section("Who signs what", page), machine) == (21, 3)


def test_every_exit_code_is_listed() -> None:
    listed = {int(code) for code in re.findall(r"(?:^|  )(\d+) +\w", section("Exit codes"), re.MULTILINE)}
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.FussyError)]
    assert listed == {0, 2, *(one.exit_code for one in classes)}


def test_the_example_of_release_json_is_one_and_shows_every_field() -> None:
    text = section("release.json")
    example = re.search(r"^    \{.*?\}\}$", text, re.MULTILINE | re.DOTALL)
    assert example
    manifest.decode_description(example[0].encode())
    fields = set(manifest.Description.__struct_fields__)
    assert set(json.loads(example[0])) == fields
    assert set(re.findall(r"^``(\w+)``", text, re.MULTILINE)) == fields


def test_every_variable_of_a_hook_is_listed() -> None:
    told = {f"FUSSY_{name}" for name in enable.facts(Target(ROOT), ROOT, None, "install")} | {"FUSSY_HOOK"}
    assert set(re.findall(r"^``(FUSSY_\w+)``", section("Hooks"), re.MULTILINE)) == told
    assert hooks.__doc__
    assert set(re.findall(r"^``(FUSSY_\w+)``", hooks.__doc__, re.MULTILINE)) == told


def test_every_verb_is_mentioned() -> None:
    group = cli.fussy_command
    for verb in group.list_commands(group.make_context("fussy", [], resilient_parsing=True)):
        assert f"fussy-{verb}" in README or f"fussy {verb}" in README, verb


@pytest.mark.parametrize("name", ["README.rst", "CHANGELOG.rst", "keys/README.rst", "fussy/publishing/README.rst",
                                  "fussy/boot/README.rst"])
def test_it_is_well_formed(name: str) -> None:
    settings = {"report_level": Reporter.WARNING_LEVEL, "halt_level": Reporter.WARNING_LEVEL}
    publish_doctree((ROOT / name).read_text(), source_path=name, settings_overrides=settings)
