"""pdimage diff: what changes from one image to the next, for people and for programs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fussy.errors import SystemSetup
from pdimage.cli import pdimage_command
from pdimage.diff import Change, diff
from tests.pdimage.workshop import Workshop


@pytest.fixture
def two(workshop: Workshop) -> tuple[Path, Path]:
    """Two trees: a file changed, one gone, one new; a package newer, one gone; a chute changed, one new."""
    trees = []
    for version, files, packages in (
            ("1", {"etc/a": "12345", "etc/gone": "1", "share/chutes/web/chute.json": "{}"},
             {"click": "8.0", "h11": "1"}),
            ("2", {"etc/a": "123456", "etc/new": "123", "share/chutes/web/chute.json": "{ }",
                   "share/chutes/dns/chute.json": "{}"}, {"click": "8.1"})):
        for path, content in files.items():
            workshop.file(f"files-{version}/{path}", content)
        trees.append(workshop.build({"name": "r", "version": version, "overlay": [f"files-{version}"],
                                     "platform": {"paradrop": False, "fussy": False}}, f"tree-{version}").tree)
        components = [{"name": name, "version": number, "purl": f"pkg:pypi/{name}@{number}"}
                      for name, number in packages.items()]
        (trees[-1] / ".fussy/sbom.cdx.json").write_text(json.dumps({"components": components}))
    return trees[0], trees[1]


def test_all_that_differs_is_found(two: tuple[Path, Path]) -> None:
    found = diff(*two)
    assert found.components == (
        Change("Python package", "click", "8.0", "8.1"), Change("Python package", "h11", "1", ""))
    assert found.chutes == (Change("chute", "dns", "", "there"), Change("chute", "web", "there", "there"))
    files = {change.name: (change.before, change.after) for change in found.files}
    assert files.items() >= {("etc/a", ("5", "6")), ("etc/gone", ("1", "")), ("etc/new", ("", "3"))}
    assert {".fussy/release.json", ".fussy/sbom.cdx.json", ".fussy/build.json"} <= set(files)
    assert ".post-install" not in files
    assert found.written == sum(int(after or 0) for _, after in files.values())


def test_people_and_programs_are_told(two: tuple[Path, Path]) -> None:
    said = CliRunner().invoke(pdimage_command, ["diff", *map(str, two), "--files"], catch_exceptions=False).output
    for line in ("* Python package click: 8.0 -> 8.1", "- Python package h11: 1", "+ chute dns", "* chute web",
                 "* file etc/a: 5 bytes -> 6 bytes", "+ file etc/new: 3 bytes", "- file etc/gone: 1 bytes"):
        assert f"{line}\n" in said
    brief = CliRunner().invoke(pdimage_command, ["diff", *map(str, two)], catch_exceptions=False).output
    assert "file etc/a" not in brief
    told = json.loads(CliRunner().invoke(pdimage_command, ["diff", "--json", *map(str, two)]).output)
    assert told["components"][0] == {"kind": "Python package", "name": "click", "before": "8.0", "after": "8.1"}


def test_the_same_tree_has_no_difference(two: tuple[Path, Path]) -> None:
    found = diff(two[0], two[0])
    assert (found.components, found.chutes, found.files, found.written) == ((), (), (), 0)


def test_what_is_no_tree_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemSetup, match="not a directory"):
        diff(two[0], tmp_path / "gone")
    (two[1] / ".fussy/sbom.cdx.json").write_text("{")
    with pytest.raises(SystemSetup, match="damaged"):
        diff(*two)
