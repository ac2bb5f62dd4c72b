"""Python packages in the tree: from a lock, from a directory, for the right machine, always the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdimage import lock, pythonparts, wheels, wheelstore
from pdimage.errors import Mistakes, PartFailed
from pdimage.machine import Machine
from tests.pdimage.wheelmaker import make_wheel, sha256, snapshot

HERE = Machine.here()
OTHER = Machine("3.11", "aarch64", "2.31")


def locked(file: Path, *found: Path) -> Path:
    """Write a lock of these wheels."""
    names = [wheel.name.split("-") for wheel in found]
    file.write_text("".join(f"{name[0]}=={name[1]} \\\n    --hash=sha256:{sha256(wheel)}\n"
                            for name, wheel in zip(names, found, strict=True)))
    return file


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


def install(tmp_path: Path, tree: str = "tree", **how: object) -> Path:
    how.setdefault("own", ())
    pythonparts.install(tmp_path / tree, cache=tmp_path / "cache", **how)  # type: ignore[arg-type]
    return tmp_path / tree


def mistakes(tmp_path: Path, **how: object) -> str:
    with pytest.raises(Mistakes) as caught:
        install(tmp_path, **how)
    return str(caught.value)


def test_a_command_works_wherever_the_tree_lies(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "demo", entry_points="demo = demo:main",
               files={"demo-1.0.data/scripts/demo-tool": "#!python\nimport demo\nprint('tool', demo.__file__)\n",
                      "demo-1.0.data/scripts/demo.sh": "#!/bin/sh\necho shell\n"})
    tree = install(tmp_path, wheels=shelf)
    moved = tmp_path / "elsewhere" / "v 2"
    moved.parent.mkdir()
    tree.rename(moved)
    (tmp_path / "link").symlink_to(moved / "bin" / "demo")
    run = {"capture_output": True, "text": True, "check": True, "timeout": 60}
    assert subprocess.run([tmp_path / "link"], **run).stdout == "demo 1.0\n"  # type: ignore[call-overload]
    tool = subprocess.run([moved / "bin" / "demo-tool"], **run).stdout  # type: ignore[call-overload]
    assert tool == f"tool {moved}/lib/python/demo.py\n"
    assert subprocess.run([moved / "bin" / "demo.sh"], **run).stdout == "shell\n"  # type: ignore[call-overload]
    assert not [file for file in moved.rglob("*") if file.is_file() and str(tmp_path).encode() in file.read_bytes()]


def test_the_same_packages_give_the_same_bytes(tmp_path: Path, shelf: Path) -> None:
    for name in ("one", "two", "three"):
        make_wheel(shelf, name, entry_points=f"{name} = {name}:main")
    first = snapshot(install(tmp_path, "first", wheels=shelf))
    again = snapshot(install(tmp_path, "again", wheels=shelf))
    shutil.rmtree(tmp_path / "cache")
    umask = os.umask(0o077)
    try:
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(shelf, elsewhere / "other")
        last = snapshot(install(elsewhere, "last", wheels=elsewhere / "other"))
    finally:
        os.umask(umask)
    assert first == again
    assert first == last
    info = tmp_path / "first/lib/python/one-1.0.dist-info"
    assert {file.name for file in info.iterdir()} == {"METADATA", "RECORD", "WHEEL", "entry_points.txt"}
    assert "../../bin/one,sha256=" in (info / "RECORD").read_text()


def test_components_say_what_is_there(tmp_path: Path, shelf: Path) -> None:
    wheel = make_wheel(shelf, "upper", files={"upper-1.0.dist-info/licenses/LICENSE": "Do what you like.\n"},
                       metadata="License-Expression: MIT\nRequires-Dist: lower>=1; python_version > '3'\n"
                                "Requires-Dist: never; python_version < '3'\nRequires-Dist: extra; extra == 'x'\n")
    make_wheel(shelf, "lower", metadata="Classifier: License :: OSI Approved :: Apache Software License\n")
    lower, upper = pythonparts.install(tmp_path / "tree", wheels=shelf, own=(), cache=tmp_path / "cache")
    assert (lower.kind, lower.name, lower.version, lower.licences) == ("python", "lower", "1.0", ("Apache-2.0",))
    assert upper.sha256 == sha256(wheel)
    assert upper.requires == (lower.purl,) == ("pkg:pypi/lower@1.0",)
    assert upper.texts == ("lib/python/upper-1.0.dist-info/licenses/LICENSE",)
    assert "lib/python/upper.py" in upper.files
    assert all((tmp_path / "tree" / path).is_file() for path in upper.files)


def test_a_wheel_for_another_machine_is_refused_with_what_fits(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "native", tag="cp311-cp311-manylinux_2_17_s390x")
    make_wheel(shelf, "plain", tag="py2-none-any")
    text = mistakes(tmp_path, wheels=shelf, machine=OTHER)
    assert "cannot build: 2 mistakes" in text
    assert "native-1.0-cp311-cp311-manylinux_2_17_s390x.whl is made for another machine" in text
    assert "cp311-cp311-manylinux_2_31_aarch64" in text
    assert not (tmp_path / "tree").exists()


def test_of_several_wheels_the_one_that_fits_best_is_taken(tmp_path: Path, shelf: Path) -> None:
    for tag in ("py3-none-any", "cp311-cp311-manylinux_2_17_aarch64", "cp311-cp311-manylinux_2_28_aarch64",
                "cp311-cp311-manylinux_2_35_aarch64", "cp311-cp311-manylinux_2_17_x86_64"):
        make_wheel(shelf, "native", tag=tag, files={"tag.txt": tag})
    tree = install(tmp_path, wheels=shelf, machine=OTHER)
    assert (tree / "lib/python/tag.txt").read_text() == "cp311-cp311-manylinux_2_28_aarch64"


def test_two_versions_in_a_directory_need_a_lock(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "demo")
    newer = make_wheel(shelf, "demo", "2.0")
    assert "one version of each package" in mistakes(tmp_path, wheels=shelf)
    tree = install(tmp_path, wheels=shelf, requirements=locked(tmp_path / "lock.txt", newer))
    assert (tree / "lib/python/demo-2.0.dist-info").is_dir()


def test_all_mistakes_of_a_lock_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "lock.txt"
    (tmp_path / "more.txt").write_text("\nnested==1\n")
    file.write_text(f"# a lock\nnohash==1.0\nloose>=2 --hash=sha256:{'0' * 64}\nshort==1 --hash=sha256:abc\n"
                    f"good==1 \\\n  --hash=sha256:{'a' * 64}\n-e ./src\nGood==2 --hash=sha256:{'a' * 64}\n-r more.txt\n"
                    f"gone==1; python_version < '3' --hash=sha256:{'b' * 64}\n./x.whl --hash=sha256:{'b' * 64}\n")
    text = mistakes(tmp_path, requirements=file)
    assert f"{file}:2: nohash has no --hash=sha256:" in text
    assert f"{file}:3: loose has no exact version" in text
    assert f"{file}:4: short: 'sha256:abc' is not" in text
    assert f"{file}:7: -e can't be used in a lock" in text
    assert f"{file}:8: Good is there already, at {file}:5" in text
    assert f"{tmp_path}/more.txt:2: nested has no --hash" in text
    assert f"{file}:11: './x.whl' is not NAME==VERSION" in text
    assert "gone" not in text


PIECES = ["demo", "==1", "==1.*", "~=2", "===1", ";", "python_version > '3'", "extra == 'x'", " --hash", "\\\n", "\n",
          f" --hash=sha256:{'a' * 64}", "-r ", ".", "lock.txt", "\0", "-e ", "#", " @ ", "http://x/y.whl", "[a,b]",
          "${HOME}"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60))
def test_whatever_a_lock_says_is_a_lock_or_mistakes(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "lock.txt"
        file.write_bytes(text.encode(errors="surrogatepass"))
        try:
            found = lock.read(file, HERE.environment())
        except Mistakes as error:
            assert error.mistakes
        else:
            assert all(pin.sha256 for pin in found.pins)


def test_a_lock_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    assert "b.txt:1: a.txt includes itself" in mistakes(tmp_path, requirements=tmp_path / "a.txt")


def test_a_missing_lock_is_a_mistake(tmp_path: Path) -> None:
    assert "none.txt: cannot be read: No such file" in mistakes(tmp_path, requirements=tmp_path / "none.txt")


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, shelf: Path) -> None:
    file = locked(tmp_path / "lock.txt", make_wheel(shelf, "demo"))
    make_wheel(shelf, "demo", files={"evil.py": "1"})
    text = mistakes(tmp_path, wheels=shelf, requirements=file)
    assert f"{file}:1: the lock has none of the hashes of demo-1.0-py3-none-any.whl" in text


def test_what_a_package_needs_must_be_locked_too(tmp_path: Path, shelf: Path) -> None:
    file = locked(tmp_path / "lock.txt", make_wheel(shelf, "demo", metadata="Requires-Dist: absent>=2\n"),
                  make_wheel(shelf, "base"))
    make_wheel(shelf, "absent", "3.0")
    assert f"{file}: demo needs absent>=2, which is not here" in mistakes(tmp_path, wheels=shelf, requirements=file)


def test_two_packages_with_one_file_are_refused(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "one", files={"shared/same.py": "same", "shared/other.py": "1"})
    make_wheel(shelf, "two", files={"shared/same.py": "same", "shared/other.py": "2"})
    with pytest.raises(PartFailed, match=r"package two into the tree: .* at lib/python/shared/other.py;"):
        install(tmp_path, wheels=shelf)


@pytest.mark.parametrize("content", [b"", b"no zip", None], ids=["empty", "text", "changed"])
def test_a_broken_wheel_is_refused_by_name(tmp_path: Path, shelf: Path, content: bytes | None) -> None:
    wheel = make_wheel(shelf, "demo")
    wheel.write_bytes(content if content is not None else wheel.read_bytes().replace(b"print", b"evil!"))
    assert "demo-1.0-py3-none-any.whl: is not a sound wheel: " in mistakes(tmp_path, wheels=shelf)
    assert not list((tmp_path / "cache" / "unpacked").iterdir())


def test_a_wheel_cannot_write_outside_the_tree(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "demo", files={"../../../../evil.py": "x"})
    assert "outside of the target directory" in mistakes(tmp_path, wheels=shelf)
    assert not list(tmp_path.rglob("evil.py"))


def test_our_own_packages_are_imported_from_the_tree(tmp_path: Path) -> None:
    own = pythonparts.install(tmp_path / "tree", own=("fussy", "paradrop"), cache=tmp_path / "cache")
    assert [component.name for component in own] == ["fussy", "paradrop"]
    tree = tmp_path / "tree"
    assert (tree / "lib/python/paradrop/main.py").is_file()
    assert (tree / "share/doc/fussy/LICENSE").is_file()
    assert f"lib/python/fussy/__pycache__/errors.{sys.implementation.cache_tag}.pyc" in own[0].files
    assert all((tree / path).is_file() for component in own for path in component.files)
    done = subprocess.run([sys.executable, "-c", "import fussy, paradrop; print(fussy.__file__, paradrop.__file__)"],
                          capture_output=True, text=True, timeout=60, check=True, cwd="/",
                          env={**os.environ, "PYTHONPATH": str(tree / "lib/python"), "PYTHONDONTWRITEBYTECODE": "1"})
    library = tree / "lib/python"
    assert done.stdout.split() == [f"{library}/fussy/__init__.py", f"{library}/paradrop/__init__.py"]


def test_modules_are_compiled_and_notice_a_changed_source(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "demo", files={"package/inner.py": "x = {'a', 'b', 'c'} & {1}\n", "package/old.py": "print 1\n"})
    library = install(tmp_path, wheels=shelf) / "lib/python"
    assert {file.name.partition(".")[0] for file in library.rglob("*.pyc")} == {"demo", "inner"}

    def says() -> str:
        program = f"import sys; sys.path.insert(0, {str(library)!r}); import demo; demo.main()"
        done = subprocess.run([sys.executable, "-I", "-B", "-v", "-c", program], capture_output=True, text=True,
                              timeout=60, check=True)
        used = f"# {library}/__pycache__/demo.{sys.implementation.cache_tag}.pyc matches {library}/demo.py"
        return f"{done.stdout}compiled: {used in done.stderr}"

    assert says() == "demo 1.0\ncompiled: True"
    (library / "demo.py").write_text((library / "demo.py").read_text().replace("1.0", "2.0"))
    assert says() == "demo 2.0\ncompiled: False"


def test_nothing_is_compiled_for_another_python(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "demo")
    tree = install(tmp_path, wheels=shelf, machine=Machine("3.99", HERE.processor, HERE.glibc))
    assert not list(tree.rglob("__pycache__"))


def test_two_builds_can_share_a_cache(tmp_path: Path) -> None:
    with wheelstore.appearing(tmp_path / "ready") as mine:
        (mine / "file").write_text("mine")
        with wheelstore.appearing(tmp_path / "ready") as other:
            (other / "file").write_text("other")
    assert (tmp_path / "ready/file").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]
    with pytest.raises(ZeroDivisionError), wheelstore.appearing(tmp_path / "never"):
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_markers_are_judged_for_the_machine_of_the_image(tmp_path: Path) -> None:
    file = tmp_path / "lock.txt"
    digest = hashlib.sha256(b"").hexdigest()
    file.write_text(f"arm==1; platform_machine == 'aarch64' --hash=sha256:{digest}\n"
                    f"pc==1 ; platform_machine == 'x86_64' --hash=sha256:{digest}\n")
    assert [pin.name for pin in lock.read(file, OTHER.environment()).pins] == ["arm"]


def test_the_tags_of_this_machine_are_those_of_its_python() -> None:
    from packaging.tags import sys_tags

    assert set(HERE.ranks()) == set(sys_tags())


def test_facts_fall_back_from_expression_to_text(tmp_path: Path) -> None:
    info = tmp_path / "x-1.dist-info"
    info.mkdir()
    (info / "COPYING").write_text("text")
    for metadata, licences in [
        ("License: BSD-3-Clause\nClassifier: License :: OSI Approved :: BSD License\n", ("BSD-3-Clause",)),
        ("License: " + "long " * 30 + "\nClassifier: License :: OSI Approved :: BSD License\n", ("BSD License",)),
        ("", ()),
    ]:
        (info / "METADATA").write_text(f"Name: x\nVersion: 1\n{metadata}\n")
        facts = wheels.read_facts(info)
        assert facts.licences == licences
        assert facts.texts == ("COPYING",)
