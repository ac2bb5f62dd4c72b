"""What becomes of packages from version to version, and which selections the example catalogue's boards take."""

import shutil
from pathlib import Path

import msgspec
import pytest

from fussy.ondemand import Request
from pdimage.errors import Mistakes
from pdimage.server import catalogue, packages
from pdimage.server.builders import Impossible, Task, images
from pdimage.server.catalogue import Change, Distro, Version
from pdimage.server.settings import EXAMPLE


def distro(*changes: list[Change]) -> Distro:
    """A distribution with a version for each list of changes, after version 0."""
    return Distro("images", {"0": Version(), **{
        str(number): Version(changes=tuple(made)) for number, made in enumerate(changes, 1)}})


CHAIN = distro([Change("a", to="b")], [Change("b", to="c"), Change("x", drop=True, why="nobody liked it")])
CONTEXT = distro([Change("vpn", by={"vpn-large": ("page",), "vpn-small": ("tls",), "vpn-tiny": ()})],
                 [Change("old", by={"new": ("helper",)})])


@pytest.mark.parametrize(("known", "old", "new", "given", "there", "renamed", "dropped"), [
    (CHAIN, "0", "2", ["a", "z"], ("c", "z"), {"a": "c"}, {}),
    (CHAIN, "0", "1", ["a", "x"], ("b", "x"), {"a": "b"}, {}),
    (CHAIN, "1", "2", ["a", "x"], ("a",), {}, {"x": "nobody liked it"}),
    (CHAIN, "0", "2", ["a", "c"], ("c",), {"a": "c"}, {}),
    (CHAIN, "2", "0", ["c"], ("c",), {}, {}),
    (CHAIN, "9", "2", ["a"], ("a",), {}, {}),
    (CONTEXT, "0", "1", ["vpn"], ("vpn-tiny",), {"vpn": "vpn-tiny"}, {}),
    (CONTEXT, "0", "1", ["vpn", "tls"], ("tls", "vpn-small"), {"vpn": "vpn-small"}, {}),
    (CONTEXT, "0", "1", ["vpn", "tls", "page"], ("page", "tls", "vpn-large"), {"vpn": "vpn-large"}, {}),
    (CONTEXT, "0", "2", ["old"], (), {}, {"old": "version 2 does not have it any more"}),
])
def test_packages_of_another_version(
    known: Distro, old: str, new: str, given: list[str], there: tuple[str, ...], renamed: dict[str, str],
    dropped: dict[str, str],
) -> None:
    found = packages.transform(known, old, new, given)
    assert (found.packages, dict(found.renamed), dict(found.dropped)) == (there, renamed, dropped)


def manifest(place: Path, target: str, profile: str, *wanted: str, only: bool = True, chute: str = "") -> list[str]:
    """Return the packages of an image of the example catalogue; nothing is built. The package ``more`` has CHUTE."""
    known = catalogue.read(EXAMPLE)
    there = known.target("paradrop", "1.0", target)
    assert there
    if chute:
        more = catalogue.Package("1", needs=("runtime",), image={"chutes": [{"path": chute}]})
        there = msgspec.structs.replace(there, packages={**there.packages, "more": more})
    task = Task("0" * 64, Request("paradrop", "1.0", target, profile, wanted, diff_packages=only), "",
                known.distros["paradrop"], there, known.root, str(place), "")
    return sorted(images.manifest(task, lambda text: None))


def test_what_packages_need_comes_with_them(tmp_path: Path) -> None:
    assert manifest(tmp_path, "x86/64", "generic", "hello-world") == ["hello-world", "runtime"]
    assert manifest(tmp_path, "x86/64", "generic", only=False) == ["runtime"]
    assert manifest(tmp_path, "x86/64", "generic", "-runtime", only=False) == []


@pytest.mark.parametrize(("board", "wanted", "reason"), [
    (("x86/64", "generic"), ["captive-portal", "parental-controls"], "captive-portal conflicts with parental-controls"),
    (("x86/64", "generic"), ["hello-world", "-runtime"], "runtime can't be left out: hello-world needs it"),
])
def test_an_impossible_selection_says_which_and_why(
        tmp_path: Path, board: tuple[str, str], wanted: list[str], reason: str) -> None:
    with pytest.raises(Impossible) as caught:
        manifest(tmp_path, *board, *wanted, only=False)
    assert str(caught.value) == f"Impossible package selection: {reason}"


def test_chutes_in_each_others_way_are_found_before_anything_is_built(tmp_path: Path) -> None:
    board = "mediatek/filogic", "bananapi_bpi-r3"
    assert "virtual-router" in manifest(tmp_path, *board, "virtual-router")
    other = shutil.copytree(EXAMPLE.parent / "../../chutes/virtual-router", tmp_path / "other")
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("name: virtual-router", "name: other"))
    with pytest.raises(Impossible) as caught:
        manifest(tmp_path, *board, "virtual-router", "more", chute=str(other))
    assert caught.value.reasons == (
        "virtual-router: net.wifi.ssid: Paradrop-Network belongs to other; change one of them",)


def test_all_mistakes_of_a_catalogue_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text("""
        distros:
          Tiny: {builder: images, versions: {"1": {image: a.yaml, packages: {"a b": {version: "1", needs: [c]}}}}}
          other: {builder: imagebuilder, latest: "3", versions: {"2": {changes: [{package: a, to: b, drop: true}]}}}
        """)
    with pytest.raises(Mistakes) as caught:
        catalogue.read(file)
    assert [(mistake.path, mistake.text) for mistake in caught.value.mistakes] == [
        ("distros.Tiny", "'Tiny' is no distro"),
        ("distros.Tiny.versions.1.packages", "'a b' is no package"),
        ("distros.Tiny.versions.1.packages.a b", "names c, which this version does not have"),
        ("distros.other", "must have a version that is no snapshot, and latest must be one of its versions"),
        ("distros.other.versions.2.imagebuilder", "is missing; name the directory or archive of the ImageBuilder"),
        ("distros.other.versions.2.changes", "must say one of to, by and drop for a")]
