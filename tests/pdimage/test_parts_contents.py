"""What is inside containers, read from the layers of an image layout."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdimage import contents, debcontrol
from pdimage.components import Component
from pdimage.errors import PartFailed

STATUS = """\
Package: base-files
Status: install ok installed
Architecture: amd64
Version: 12.4
Description: files
 many lines
 .
 of text

Package: tool
Status: install ok installed
Architecture: amd64
Version: 1:2
Depends: base-files (>= 1), libc6 | libc7

Package: removed
Status: deinstall ok config-files
Version: 1
"""
APK = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:busybox\nV:1.36\nA:x86_64\nL:GPL-2.0-only\n"
FREE = "See /usr/share/common-licenses/GPL-2\n"


class Layout:
    """An image layout below TREE."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.blobs = tree / contents.BLOBS
        self.blobs.mkdir(parents=True)

    def blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return digest

    def layer(self, files: Mapping[str, str], compression: str = "") -> str:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
            for path, text in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        return self.blob(stream.getvalue())

    def image(self, name: str, *layers: str) -> Component:
        manifest = {"layers": [{"digest": f"sha256:{digest}"} for digest in layers]}
        digest = self.blob(json.dumps(manifest).encode())
        return Component("container", name, "1", (), f"pkg:oci/{name}@sha256%3A{digest}", (), digest)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def names(found: tuple[Component, ...]) -> list[str]:
    return [f"{component.name} {component.version}" for component in found]


def test_packages_of_debian_and_python_are_found(layout: Layout) -> None:
    image = layout.image("web", layout.layer({
        "etc/os-release": 'NAME="x"\nID=debian\n', "var/lib/dpkg/status": STATUS, "usr/share/doc/tool/copyright": FREE,
        "usr/lib/python3/dist-packages/My_Package-1.0.dist-info/METADATA":
            "Name: My_Package\nVersion: 1.0\nLicense-Expression: MIT\n\nName: body\n"}))
    found = contents.find(layout.tree, [image])
    assert names(found) == ["base-files 12.4", "tool 1:2", "my-package 1.0"]
    assert {component.inside for component in found} == {image.purl}
    assert found[1].licences == ("GPL-2",)
    assert found[1].purl == "pkg:deb/debian/tool@1:2?arch=amd64"
    assert found[1].requires == (found[0].purl,)
    assert found[2].licences == ("MIT",)


def test_packages_of_alpine_are_found(layout: Layout) -> None:
    image = layout.image("web", layout.layer({"lib/apk/db/installed": APK, "etc/os-release": "ID=alpine\n"}, "gz"))
    found = contents.find(layout.tree, [image])
    assert [(one.kind, one.purl, one.licences) for one in found] == [
        ("alpine", "pkg:apk/alpine/busybox@1.36?arch=x86_64", ("GPL-2.0-only",)),
        ("alpine", "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64", ("MIT",))]


def test_packages_of_images_without_a_shell_are_found(layout: Layout) -> None:
    image = layout.image("web", layout.layer({
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2026\nArchitecture: all\n",
        "var/lib/dpkg/status.d/tzdata.md5sums": "0 x\n"}))
    assert names(contents.find(layout.tree, [image])) == ["tzdata 2026"]


@pytest.mark.parametrize("whiteout", ["usr/lib/.wh.a.dist-info", "usr/.wh.lib", "usr/lib/a.dist-info/.wh.METADATA",
                                      "usr/lib/.wh..wh..opq", "usr/.wh..wh..opq", ".wh.usr", ".wh..wh..opq"])
def test_what_a_later_layer_takes_away_is_not_there(layout: Layout, whiteout: str) -> None:
    below = layout.layer({"usr/lib/a.dist-info/METADATA": "Name: a\nVersion: 1\n"})
    above = layout.layer({whiteout: "", "./usr/lib/b.dist-info/METADATA": "Name: b\nVersion: 1\n"})
    assert names(contents.find(layout.tree, [layout.image("web", below, above)])) == ["b 1"]
    assert names(contents.find(layout.tree, [layout.image("web", below)])) == ["a 1"]


def test_a_later_list_replaces_an_earlier_one(layout: Layout) -> None:
    layers = [layout.layer({"lib/apk/db/installed": f"P:a\nV:{version}\n"}) for version in (1, 2)]
    assert names(contents.find(layout.tree, [layout.image("web", *layers)])) == ["a 2"]


def test_shared_layers_are_read_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = layout.layer({"lib/apk/db/installed": APK})
    images = [layout.image(name, shared, layout.layer({name: "x"})) for name in ("one", "two")]
    read = []
    original = contents.read_layer
    monkeypatch.setattr(contents, "read_layer", lambda file: (read.append(file.name), original(file))[1])
    assert len(contents.find(layout.tree, images)) == 4
    assert len(read) == len(set(read)) == 3


def test_what_cannot_be_read_is_told_with_the_container(layout: Layout) -> None:
    broken = layout.image("web", layout.blob(b"no tar"))
    with pytest.raises(PartFailed, match="cannot list what is in the container web: "):
        contents.find(layout.tree, [broken])
    with pytest.raises(PartFailed, match="container gone"):
        contents.find(layout.tree, [Component("container", "gone", "1", sha256="0" * 64)])


LINES = ["Package:", "Version: 1", " a", "Status: x installed", "\n", "Depends: ", "P:", "V:1", "A:", "Name:", ":",
         "\0", "=", "\u00e9"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LINES)).map("\n".join) | st.text(max_size=50))
def test_no_list_of_packages_breaks_the_reader(text: str) -> None:
    files = {path: text.encode() for path in ("var/lib/dpkg/status", "lib/apk/db/installed", "x.dist-info/METADATA",
                                              "etc/os-release", "usr/share/doc/a/copyright")}
    assert all(component.name for component in contents.packages(files))


def test_control_data_is_read_as_it_is_written() -> None:
    assert list(debcontrol.paragraphs("Package: a\nX: c\n d\n\n\nPackage: b\n")) == [
        {"Package": "a", "X": "c\n d"}, {"Package": "b"}]
    assert debcontrol.names("libc6 (>= 2.34), awk | mawk:any") == ("awk", "libc6", "mawk")
