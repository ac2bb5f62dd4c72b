"""Debian packages in the tree: archives made here, and two small ones through apt if its archive can be reached."""

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pdimage import aptarchive, copyrights, debianparts
from pdimage.components import Component
from pdimage.errors import Mistakes, PartFailed
from pdimage.machine import Machine
from tests.pdimage.wheelmaker import sha256, snapshot

ARCHITECTURE = Machine.here().debian
MACHINE_READABLE = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2020 Somebody
License: GPL-2+ or Expat

Files: debian/*
License: GPL-2+
 This is the text.
"""


def make_deb(
    cache: Path, name: str, version: str = "1.0", *, files: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None, depends: str = "", postinst: str = "",
) -> str:
    """Put an archive into CACHE, as if apt had fetched it, and return what to ask for."""
    source = cache.parent / f"source-{name}"
    shutil.rmtree(source, ignore_errors=True)
    for path, text in (files or {}).items():
        file = source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if "bin/" in path else 0o644)
    for path, target in (links or {}).items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).symlink_to(target)
    control = source / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
        + (f"Depends: {depends}\n" if depends else ""))
    if postinst:
        (control / "postinst").write_text(postinst)
        (control / "postinst").chmod(0o755)
    cache.mkdir(exist_ok=True)
    archive = cache / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", source, archive], check=True, capture_output=True,
                   timeout=60)
    Path(f"{archive}.sha256").write_text(sha256(archive))
    return f"{name}={version}"


def install(tmp_path: Path, *packages: str, tree: str = "tree") -> tuple[Component, ...]:
    return debianparts.install(tmp_path / tree, packages, tmp_path / "cache")


def mistakes(tmp_path: Path, *packages: str) -> str:
    with pytest.raises(Mistakes) as caught:
        install(tmp_path, *packages)
    assert not (tmp_path / "tree").exists()
    return str(caught.value)


def test_a_program_runs_from_wherever_the_tree_lies(tmp_path: Path) -> None:
    demo = make_deb(tmp_path / "cache", "demo", files={
        "usr/bin/demo": '#!/bin/sh\necho "$0 $* $LD_LIBRARY_PATH"\n', "usr/lib/x86_64-linux-gnu/libdemo.so.1": "x",
        "usr/sbin/readme": "not executable"})
    install(tmp_path, demo)
    moved = tmp_path / "a b"
    (tmp_path / "tree").rename(moved)
    (tmp_path / "link").symlink_to("a b/bin/demo")
    done = subprocess.run([tmp_path / "link", "1 2"], capture_output=True, text=True, timeout=60, check=True,
                          env={"PATH": os.environ["PATH"]})
    assert done.stdout == f"{moved}/debian/usr/bin/demo 1 2 {moved}/debian/usr/lib/x86_64-linux-gnu\n"


def test_a_program_finds_the_libraries_of_other_packages(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    install(tmp_path, make_deb(cache, "zlib", files={"lib/aarch64-linux-gnu/libz.so.1.2": "x", "usr/lib/libz.so": "x"}),
            make_deb(cache, "demo", files={"bin/demo": '#!/bin/sh\necho "$LD_LIBRARY_PATH"\n',
                                           "usr/lib/demo/plugin.so": "x"}))
    done = subprocess.run([tmp_path / "tree/bin/demo"], capture_output=True, text=True, timeout=60, check=True,
                          env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": "/own"})
    debian = tmp_path / "tree/debian"
    assert done.stdout == f"{debian}/lib/aarch64-linux-gnu:{debian}/usr/lib:/own\n"


def test_two_programs_of_one_name_are_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = [make_deb(cache, name, files={f"{where}/same": "#!/bin/sh\n"}) for name, where in
             (("one", "bin"), ("two", "usr/bin"))]
    with pytest.raises(PartFailed, match="programs of the Debian package two into the tree: .* at bin/same"):
        install(tmp_path, *names)


def test_no_script_of_a_package_is_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    demo = make_deb(tmp_path / "cache", "demo", postinst=f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    with caplog.at_level(logging.INFO):
        install(tmp_path, demo)
    assert not (tmp_path / "ran").exists()
    assert "postinst of the Debian package demo will not be run" in caplog.text


def test_full_links_into_the_package_stay_in_the_tree(tmp_path: Path) -> None:
    demo = make_deb(tmp_path / "cache", "demo", files={"usr/lib/demo/real": "x"}, links={
        "usr/bin/demo": "/usr/lib/demo/real", "usr/bin/host": "/bin/sh", "usr/share/doc/demo/copyright": "/etc/passwd",
        "etc/alternatives/demo": "/usr/bin/nano", "usr/lib/demo/near": "real"})
    [component] = install(tmp_path, demo)
    debian = tmp_path / "tree/debian"
    assert os.readlink(debian / "usr/bin/demo") == "../lib/demo/real"
    assert os.readlink(debian / "etc/alternatives/demo") == "/usr/bin/nano"
    assert os.readlink(debian / "usr/lib/demo/near") == "real"
    assert component.texts == ()
    assert not (tmp_path / "tree/bin/host").exists()


def test_components_say_what_is_there(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    demo = make_deb(cache, "demo", "1.0~rc1+x", depends="base (>= 1) | other, libc6", files={
        "usr/bin/demo": "#!/bin/sh\n", "usr/share/doc/demo/copyright": MACHINE_READABLE})
    found = install(tmp_path, make_deb(cache, "base"), demo)
    assert [component.name for component in found] == ["base", "demo"]
    component = found[1]
    assert component.licences == ("GPL-2.0-or-later OR MIT", "GPL-2.0-or-later")
    assert component.purl == "pkg:deb/debian/demo@1.0~rc1%2Bx?arch=all"
    assert component.requires == ("pkg:deb/debian/base@1.0?arch=all",)
    assert component.files == ("bin/demo", "debian/usr/bin/demo", "debian/usr/share/doc/demo/copyright")
    assert component.texts == ("debian/usr/share/doc/demo/copyright",)
    assert component.sha256 == sha256(cache / "demo_1.0~rc1+x_all.deb")


def test_the_same_packages_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    names = [make_deb(tmp_path / "cache", name, files={f"usr/bin/{name}": "#!/bin/sh\n"}) for name in ("one", "two")]
    umask = os.umask(0o077)
    try:
        first = install(tmp_path, *names, tree="first")
    finally:
        os.umask(umask)
    assert install(tmp_path, *reversed(names), tree="second") == first
    assert snapshot(tmp_path / "first") == snapshot(tmp_path / "second")


def test_two_packages_with_one_file_are_refused(tmp_path: Path) -> None:
    names = [make_deb(tmp_path / "cache", name, files={"usr/share/x": name}) for name in ("one", "two")]
    with pytest.raises(PartFailed, match=r"package two into the tree: .* at debian/usr/share/x;"):
        install(tmp_path, *names)


def test_a_package_named_twice_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    text = mistakes(tmp_path, make_deb(cache, "demo", "1.0"), make_deb(cache, "demo", "2.0"))
    assert "platform.debian[1]: demo is there already" in text


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    demo = make_deb(tmp_path / "cache", "demo")
    [archive] = (tmp_path / "cache").glob("*.deb")
    archive.write_bytes(archive.read_bytes()[:200])
    Path(f"{archive}.sha256").write_text(sha256(archive))
    with pytest.raises(PartFailed, match="cannot read demo_1.0_all.deb: dpkg-deb ended with 2"):
        install(tmp_path, demo)


def test_free_form_copyrights_count_for_what_they_point_to(tmp_path: Path) -> None:
    file = tmp_path / "copyright"
    file.write_text("It is free.\nSee `/usr/share/common-licenses/GPL-3', or\n/usr/share/common-licenses/GPL-3.\n")
    assert list(copyrights.read(file)) == ["GPL-3"]
    assert copyrights.spdx("GPL-2+ or Expat") == "GPL-2.0-or-later OR MIT"
    assert copyrights.spdx("LGPL-2.1") == "LGPL-2.1-only"


@pytest.fixture(scope="module")
def lists() -> None:
    done = subprocess.run(["apt-get", "download", "--print-uris", "hello"], capture_output=True, timeout=120)
    if done.returncode:
        pytest.skip("apt has no lists of packages (apt-get update)")


def test_what_is_no_package_name_never_reaches_apt(tmp_path: Path) -> None:
    text = mistakes(tmp_path, "--help", "a b", "x=../y", "Upper")
    assert "4 mistakes" in text
    assert "platform.debian[0]: '--help' is not a Debian package: write name or name=version" in text


@pytest.mark.usefixtures("lists")
def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    text = mistakes(tmp_path, "busybox-statik", "hello=9:9", "zz-no-such-thing")
    assert "platform.debian[0]: apt knows no package busybox-statik; did you mean busybox-static" in text
    assert "platform.debian[1]: hello has no version 9:9; there is 2." in text
    assert "platform.debian[2]: apt knows no package zz-no-such-thing; correct the name" in text


@pytest.mark.usefixtures("lists")
def test_a_real_package_runs_and_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        [hello] = install(tmp_path, "hello")
    except PartFailed as error:
        if "Failed to fetch" in str(error):
            pytest.skip(f"the archive of Debian can't be reached: {error}")
        raise
    done = subprocess.run([tmp_path / "tree/bin/hello", "-g", "hi"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "hi\n"
    assert "GPL" in hello.licences[0]

    def refuse(*what: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(aptarchive, "fetch", refuse)
    assert install(tmp_path, f"hello={hello.version}", tree="again") == (hello,)
