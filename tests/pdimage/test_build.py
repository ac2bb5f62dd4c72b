"""What pdimage build makes: the same tree from the same input, wherever and whenever, and never half a tree."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fussy import manifest, tree
from fussy.errors import SystemSetup
from pdimage import build as building
from pdimage.build import build
from pdimage.check import check
from pdimage.description import Image, Platform
from pdimage.errors import Mistakes, PartFailed
from tests.fussy.conftest import Keys
from tests.pdimage.test_containers import layer, oci_archive
from tests.pdimage.wheelmaker import make_wheel
from tests.pdimage.workshop import Workshop

PLAIN: dict[str, Any] = {"name": "r", "version": "1", "platform": {"paradrop": False, "fussy": False}}


def facts(top: Path) -> list[manifest.Entry]:
    """All that fussy-pack would see of a tree."""
    return [item.entry for item in tree.scan(os.fsencode(top))]


def inputs(workshop: Workshop, keys: Keys) -> dict[str, object]:
    """Make an image of a bit of everything; return its description."""
    workshop.file("o/etc/motd", "welcome\n", 0o600)
    workshop.file("o/bin/tool", "#!/bin/sh\n", 0o744)
    os.symlink("motd", workshop.place / "o/etc/issue")
    workshop.file("port.j2", "{{ port }}\n")
    workshop.file("after.sh", "#!/bin/sh\n")
    return {"name": "router", "version": "1", "variables": {"port": 9000}, "overlay": ["o"], "keys": str(keys.keyring),
            "templates": [{"source": "port.j2", "target": "etc/port", "mode": "0640"}],
            "hooks": {"post_install": "after.sh"}, "settings": {"PDFCD_PORT": "{{ port }}"},
            "health": [{"name": "motd", "command": ["test", "-e", "etc/motd"]}], "metadata": {"b": 1, "a": "x"}}


def test_the_same_input_gives_the_same_tree_elsewhere_and_on_another_day(tmp_path: Path, keys: Keys) -> None:
    trees = []
    for i, (zone, mask, at) in enumerate((("UTC", "022", "2024-02-03 04:05:06"),
                                          ("Asia/Tokyo", "077", "2031-12-30 23:59:59"))):
        workshop = Workshop(tmp_path / ("other directory" * i or "one"))
        description = workshop.describe(inputs(workshop, keys))
        for file in workshop.place.rglob("*"):
            os.utime(file, (i * 10**8, i * 10**8), follow_symlinks=False)
        command = ["faketime", at, "sh", "-c", 'umask "$1"; shift; exec "$@"', "sh", mask, sys.executable, "-m",
                   "pdimage", "build", description, "-o", workshop.place / "tree", "--cache", workshop.place / "c"]
        if shutil.which("faketime") is None:
            pytest.skip("faketime is missing: apt-get install faketime")
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": str(i + 1)}
        subprocess.run(command, check=True, timeout=120, env=environment, stdout=subprocess.DEVNULL)
        trees.append(facts(workshop.place / "tree"))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 100


def test_modes_times_and_owners_are_made_the_same(
        workshop: Workshop, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    top = workshop.build(inputs(workshop, keys)).tree
    found = {entry.path: entry for entry in facts(top)}
    assert {entry.mtime for entry in found.values()} == {1700000000}
    if os.geteuid() == 0:
        assert {(entry.uid, entry.gid) for entry in found.values()} == {(0, 0)}
    modes = {"etc": 0o755, "etc/motd": 0o644, "bin/tool": 0o755, "bin/pd": 0o755, "etc/port": 0o640,
             "etc/fussy/keys": 0o700, "etc/fussy/keys/pubring.kbx": 0o600, ".pre-install": 0o755}
    assert {path: found[path].mode for path in modes} == modes


def test_an_image_for_another_machine_takes_what_fits_that_one(workshop: Workshop) -> None:
    other = {"processor": "aarch64", "python": "3.12", "glibc": "2.36"}
    for tag in ("cp312-cp312-manylinux_2_17_aarch64", "cp311-cp311-manylinux_2_17_x86_64"):
        make_wheel(workshop.place / "wheels", "native", tag=tag, files={"native_of.py": f"# {tag}\n"})
    described = {**PLAIN, "machine": other, "platform": {**PLAIN["platform"], "wheels": "wheels"}}
    built = workshop.build(described)
    assert "aarch64" in (built.tree / "lib/python/native_of.py").read_text()
    assert json.loads((built.tree / ".fussy/build.json").read_text())["machine"] == other
    described = {**described, "machine": {**other, "processor": "riscv64"}}
    with pytest.raises(Mistakes, match="made for another machine; what fits Python 3.12 on riscv64"):
        workshop.build(described, "other")
    assert not (workshop.place / "other").exists()


def test_a_container_for_another_machine_is_refused(workshop: Workshop) -> None:
    oci_archive(workshop.place / "web.tar", layer(page=b"hello"))
    described = {**PLAIN, "chutes": [{"archive": "web.tar"}], "machine": {"processor": "aarch64"}}
    with pytest.raises(PartFailed, match=r"container of web: it is for amd64, the image is for aarch64 \(arm64\)"):
        workshop.build(described)
    assert workshop.build({**described, "machine": {"processor": "x86_64"}}).components


def test_builds_run_side_by_side_and_a_wish_to_stop_leaves_nothing(workshop: Workshop) -> None:
    image = workshop.image({**PLAIN, "platform": {"paradrop": True, "fussy": True}})

    def one(number: int) -> list[manifest.Entry]:
        return facts(build(image, workshop.place / f"tree-{number}", cache=workshop.place / "cache").tree)

    with ThreadPoolExecutor() as pool:
        first, *others = pool.map(one, range(4))
    assert all(other == first for other in others)

    def stop(step: str) -> None:
        raise InterruptedError(step)

    with pytest.raises(InterruptedError):
        build(image, workshop.place / "stopped", cache=workshop.place / "cache", progress=stop)
    assert not list(workshop.place.glob("*stopped*"))


def test_an_image_may_be_made_by_a_program(workshop: Workshop) -> None:
    overlay = workshop.file("o/etc/motd", "welcome\n").parents[1]
    steps: list[str] = []
    image = Image("r", "1", platform=Platform(paradrop=False, fussy=False), overlay=(overlay,))
    built = build(image, workshop.place / "tree", cache=workshop.place / "cache", progress=steps.append)
    assert (built.tree / "etc/motd").read_text() == "welcome\n"
    assert steps == ["Python packages", "overlay and templates", "release", "lists"]


def test_a_build_does_not_depend_on_the_working_directory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.describe({**PLAIN, "overlay": ["o"]})
    workshop.file("o/etc/motd", "hello")
    monkeypatch.chdir(workshop.place)
    image = check(Path("image.yaml"))
    first = build(image, Path("one"), cache=Path("cache")).tree
    monkeypatch.chdir("/")
    second = build(image, workshop.place / "two", cache=workshop.place / "cache").tree
    assert facts(first) == facts(second)


def test_what_the_release_says_of_itself(workshop: Workshop, keys: Keys) -> None:
    more = {"compatible": ["pc"], "floor": "0.5", "limits": {"pre_install": 9}}
    top = workshop.build({**inputs(workshop, keys), **more}).tree
    said = manifest.decode_description((top / ".fussy/release.json").read_bytes())
    assert (said.version, said.compatible, said.floor, said.limits.pre_install) == ("1", ["pc"], "0.5", 9)
    assert [check.name for check in said.health] == ["runtime", "motd"]
    assert said.health[0].http == "http://127.0.0.1:9000/v1/test"
    assert said.metadata == {"a": "x", "b": 1}


def test_overlays_win_over_the_platform_and_templates_over_overlays(workshop: Workshop) -> None:
    workshop.file("a/bin/pd", "mine")
    workshop.file("a/etc/x", "a")
    workshop.file("b/etc/x", "b")
    workshop.file("a/etc/y", "a")
    workshop.file("y.j2", "template")
    os.symlink("/elsewhere", workshop.place / "a/link")
    workshop.file("b/link/file", "not through the link")
    top = workshop.build({"name": "r", "version": "1", "overlay": ["a", "b"],
                          "templates": [{"source": "y.j2", "target": "etc/y"}]}).tree
    assert [(top / path).read_text() for path in ("bin/pd", "etc/x", "etc/y", "link/file")] == [
        "mine", "b", "template", "not through the link"]
    assert not os.path.lexists("/elsewhere")


def test_a_tree_is_replaced_in_one_step_and_other_directories_are_not(workshop: Workshop) -> None:
    first = workshop.build(PLAIN).tree
    workshop.build({**PLAIN, "version": "2"})
    assert b'"2"' in (first / ".fussy/release.json").read_bytes()
    workshop.file("work/thesis", "years of work")
    with pytest.raises(SystemSetup, match="is no tree of pdimage; name another with -o"):
        workshop.build(PLAIN, "work")
    assert (workshop.place / "work/thesis").exists()


@pytest.mark.parametrize("error", [PartFailed("cannot build"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failing_build_leaves_what_was_there(workshop: Workshop, monkeypatch: pytest.MonkeyPatch,
                                                error: BaseException) -> None:
    before = facts(workshop.build(PLAIN).tree)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(building.releasefiles, "write", fail)
    with pytest.raises(type(error)):
        workshop.build({**PLAIN, "version": "2"})
    assert facts(workshop.place / "tree") == before
    assert not [path.name for path in workshop.place.iterdir() if path.name.startswith(".")]


def test_a_killed_build_leaves_no_half_tree_and_the_next_one_tidies_up(workshop: Workshop, keys: Keys) -> None:
    description = workshop.describe(inputs(workshop, keys))
    command = [sys.executable, "-m", "pdimage", "build", description, "-o", workshop.place / "tree", "--cache",
               workshop.place / "cache"]
    left = 0
    for milliseconds in (0, 10, 20, 40, 80):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not list(workshop.place.glob(".tree.*")) and process.poll() is None:
                time.sleep(0.001)
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGKILL)
        left += len(list(workshop.place.glob(".tree.*")))
        assert not (workshop.place / "tree").exists() or (workshop.place / "tree/.fussy/release.json").exists()
    assert left
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert not list(workshop.place.glob(".tree.*"))


def test_the_tree_works_wherever_it_lies(workshop: Workshop, packages: Path) -> None:
    top = workshop.build({"name": "r", "version": "1", "overlay": [str(packages)]}).tree
    for place in (workshop.place / "some where/else", workshop.place / "third"):
        place.parent.mkdir(exist_ok=True)
        top = top.rename(place)
        (workshop.place / "linked").unlink(missing_ok=True)
        os.symlink(place / "bin/paradrop", workshop.place / "linked")
        before = facts(top)
        for program in (place / "bin/paradrop", place / "bin/fussy", workshop.place / "linked"):
            done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True,
                                  cwd="/", env={"PATH": "/usr/bin:/bin"})
            assert done.stdout.startswith(program.resolve().name)
        subprocess.run([place / "bin/pd", "--help"], capture_output=True, timeout=60, check=True, env={
            "PATH": "/usr/bin:/bin", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"})
        assert facts(top) == before
    texts = [path for path in top.rglob("*") if path.is_file() and str(workshop.place).encode() in path.read_bytes()]
    assert texts == []


def test_only_regular_files_directories_and_links_are_in_it(workshop: Workshop, keys: Keys) -> None:
    top = workshop.build(inputs(workshop, keys)).tree
    kinds = {stat.S_IFMT(os.lstat(path).st_mode) for path in top.rglob("*")}
    assert kinds == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
