"""The list of parts, the licences, the build record: valid by the standard's own schema, and always the same bytes."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pdimage import licences, record, sbom
from pdimage.components import Component
from pdimage.machine import Machine

MACHINE = Machine("3.11", "x86_64", "2.36")


@dataclass(frozen=True)
class Image:
    name: str = "router"
    version: str = "1.0"


CLICK = Component("python", "click", "8.1", ("BSD-3-Clause",), "pkg:pypi/click@8.1", ("lib/python/click/core.py",),
                  "a" * 64, ("lib/python/click-8.1.dist-info/LICENSE",), ("pkg:pypi/colour@1",))
COLOUR = Component("python", "colour", "1", ("MIT", "Apache-2.0 OR MIT"), "pkg:pypi/colour@1", (), "b" * 64)
HELLO = Component("debian", "hello", "1:2.10-3", ("GPL-3", "GPL-2.0-or-later OR MIT"),
                  "pkg:deb/debian/hello@1:2.10-3?arch=amd64", (), "c" * 64)
CHUTE = Component("container", "web/main", "1.0", (), "pkg:oci/web/main@sha256%3A" + "d" * 64, (), "d" * 64)
INSIDE = Component("debian", "hello", "1:2.10-3", ("Strange words, (not SPDX)",), HELLO.purl, inside=CHUTE.purl)
LIBRARY = Component("alpine", "musl", "1.2", ("MIT",), "pkg:apk/alpine/musl@1.2", inside=CHUTE.purl,
                    requires=(HELLO.purl,))
OWN = Component("own", "fussy", "2.0", ("Apache-2.0",), "pkg:generic/fussy@2.0", (), "e" * 64)
ALL = (CLICK, COLOUR, HELLO, CHUTE, INSIDE, LIBRARY, OWN)


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.mark.parametrize("components", [ALL, (), (replace(OWN, purl="", licences=(), sha256=""),)],
                         ids=["all", "none", "bare"])
@pytest.mark.parametrize("seconds", ["", "1700000000"])
def test_the_list_is_valid(components: tuple[Component, ...], seconds: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = sbom.render(Image(), components, seconds)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_list_has_everything_in_its_place() -> None:
    listed = json.loads(sbom.render(Image(), ALL))
    assert listed["metadata"]["component"] == {
        "bom-ref": "router@1.0", "name": "router", "type": "firmware", "version": "1.0"}
    top = {component["bom-ref"]: component for component in listed["components"]}
    assert set(top) == {CLICK.purl, COLOUR.purl, HELLO.purl, CHUTE.purl, OWN.purl}
    assert top[CLICK.purl]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert top[CLICK.purl]["licenses"] == [{"license": {"id": "BSD-3-Clause", "acknowledgement": "declared"}}]
    assert top[COLOUR.purl]["licenses"] == [
        {"expression": "MIT AND (Apache-2.0 OR MIT)", "acknowledgement": "declared"}]
    assert [item["license"]["name"] for item in top[HELLO.purl]["licenses"]] == ["GPL-2.0-or-later OR MIT", "GPL-3"]
    assert top[CHUTE.purl]["type"] == "container"
    assert {inner["purl"] for inner in top[CHUTE.purl]["components"]} == {INSIDE.purl, LIBRARY.purl}
    needs = {item["ref"]: item.get("dependsOn", []) for item in listed["dependencies"]}
    assert needs[CLICK.purl] == [COLOUR.purl]
    assert needs[f"{CHUTE.purl}#{LIBRARY.purl}"] == [f"{CHUTE.purl}#{HELLO.purl}"]
    assert needs["router@1.0"] == sorted(top)


def test_the_same_parts_give_the_same_bytes_in_any_order_and_process(tmp_path: Path) -> None:
    text = sbom.render(Image(), ALL)
    assert sbom.render(Image(), reversed(ALL)) == text
    program = "from tests.pdimage.test_sbom import *; sys.stdout.buffer.write(sbom.render(Image(), ALL).encode())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60,
                          cwd=Path(__file__).parents[2], env={"PYTHONHASHSEED": "1"})
    assert done.stdout == text.encode()


def test_another_content_is_another_serial_number() -> None:
    numbers = {json.loads(sbom.render(Image(), parts))["serialNumber"]
               for parts in (ALL, ALL[1:], (*ALL[1:], replace(CLICK, version="8.2")))}
    assert len(numbers) == 3


def test_a_time_is_stated_only_if_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "timestamp" not in json.loads(sbom.write(tmp_path, Image(), ALL).read_text())["metadata"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    stated = json.loads(sbom.write(tmp_path, Image(), ALL).read_text())["metadata"]["timestamp"]
    assert stated == "1970-01-01T00:00:00+00:00"


def test_the_licences_name_each_part_and_where_its_text_is(tmp_path: Path) -> None:
    text = licences.write(tmp_path, Image(), reversed(ALL)).read_text()
    assert text == (tmp_path / ".fussy/licences.txt").read_text() == licences.render(Image(), ALL)
    assert "click 8.1\n    BSD-3-Clause\n    text: lib/python/click-8.1.dist-info/LICENSE\n" in text
    assert "hello 1:2.10-3 (in web/main)\n    Strange words, (not SPDX)\n" in text
    assert "web/main 1.0\n    states no licence\n" in text


def make_inputs(directory: Path) -> list[Path]:
    (directory / "overlay" / "etc").mkdir(parents=True)
    (directory / "image.yaml").write_text("name: router\n")
    (directory / "overlay/etc/issue").write_text("hello\n")
    (directory / "overlay/link").symlink_to("etc/issue")
    return [directory / "image.yaml", directory / "overlay", directory / "gone"]


def build_record(tree: Path, place: Path, inputs: list[Path]) -> str:
    tree.mkdir()
    return record.write(tree, Image(), ALL, inputs, base=place, machine=MACHINE, parameters={"board": "x"}).read_text()


def test_the_record_is_the_same_in_another_directory(tmp_path: Path) -> None:
    one = build_record(tmp_path / "t1", tmp_path / "a", make_inputs(tmp_path / "a"))
    two = build_record(tmp_path / "t2", tmp_path / "b", list(reversed(make_inputs(tmp_path / "b"))))
    assert one == two
    assert str(tmp_path) not in one
    found = json.loads(one)
    assert [item["path"] for item in found["inputs"]] == ["image.yaml", "overlay"]
    assert found["inputs"][0]["sha256"] == hashlib.sha256(b"name: router\n").hexdigest()
    assert {part["name"] for part in found["parts"]} == {"click", "colour", "hello", "web/main", "fussy"}


def test_the_digest_of_a_directory_tells_every_change(tmp_path: Path) -> None:
    overlay = make_inputs(tmp_path / "a")[1]
    seen = {record.digest(overlay)}
    (overlay / "etc/issue").chmod(0o755)
    seen.add(record.digest(overlay))
    (overlay / "etc/issue").write_text("changed\n")
    seen.add(record.digest(overlay))
    (overlay / "link").unlink()
    (overlay / "link").symlink_to("etc")
    seen.add(record.digest(overlay))
    (overlay / "empty").mkdir()
    seen.add(record.digest(overlay))
    (overlay / "etc/issue").rename(overlay / "etc/issues")
    seen.add(record.digest(overlay))
    assert len(seen) == 6


def test_what_differs_between_machines_lies_beside_the_bundle(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    build_record(tree, tmp_path / "a", make_inputs(tmp_path / "a"))
    sbom.write(tree, Image(), ALL)
    licences.write(tree, Image(), ALL)
    bundle = tmp_path / "router.tar.gz.gpg"
    bundle.write_bytes(b"sealed")
    written = record.write_beside(bundle, tree, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert [file.name.removeprefix(bundle.name) for file in written] == [
        ".sbom.cdx.json", ".licences.txt", ".provenance.json"]
    statement = json.loads(written[-1].read_text())
    assert statement["subject"] == [
        {"name": bundle.name, "digest": {"sha256": hashlib.sha256(b"sealed").hexdigest()}}]
    details = statement["predicate"]["runDetails"]
    assert details["metadata"]["startedOn"] == "2026-01-02T03:04:05Z"
    assert details["builder"]["version"]["python"] == sys.version.split()[0]
    assert details["builder"]["version"]["dpkg"].startswith("Debian 'dpkg-deb'")
    assert len(statement["predicate"]["buildDefinition"]["resolvedDependencies"]) == 2 + 5
