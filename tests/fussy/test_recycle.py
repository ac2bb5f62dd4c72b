"""A release that is made out of what fussy-clean left of an old one is the same as one made of links."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fussy import checked, install, share, verify
from fussy import target as targets
from fussy.cli import fussy_command

from .conftest import Keys
from .firmware import Firmware
from .test_delta import picture

SAME = {f"usr/{i}/{j}": f"same {i} {j}" for i in range(4) for j in range(12)}
CRONTABS = {"etc/cron.d/a": "@daily root true\n", "var/spool/cron/crontabs/root": "@daily true\n"}
OLD = {**SAME, **CRONTABS, "as-in-a-crontab": "@daily root true\n",
       "bin/app": "app 0\n" * 500, "etc/conf": "conf", "gone/file": "gone", "file-then-directory": "f",
       "directory-then-file/a": "a", "moved/from": "moved" * 100, "own": "only in the first"}
NEW = {**SAME, **CRONTABS, "as-in-a-crontab": "@daily root true\n", "from-a-crontab": "@daily true\n",
       "bin/app": "app 4\n" * 500, "etc/conf": "conf", "new/deep/file": "new", "file-then-directory/a": "a",
       "directory-then-file": "f", "moved/to": "moved" * 100, "now-a-link-of": "same 0 0"}


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


def tree(firmware: Firmware, number: int) -> Path:
    """Make release NUMBER, of 1 to 4; the last differs from the others in each way there is."""
    made = firmware.tree(f"fw-{number}", {**(NEW if number == 4 else OLD), "version": str(number)})
    os.link(made / "usr/0/1", made / "usr/0/again")
    if number == 4:
        os.link(made / "usr/0/2", made / "usr/0/other")
        (made / "usr/2").chmod(0o750)
        os.chown(made / "usr/3", 12, 34)
        os.setxattr(made / "etc", "user.note", b"n")
    else:
        os.link(made / "usr/0/3", made / "usr/0/other")
    (made / "kept-link").symlink_to("bin/app")
    (made / "link").symlink_to("bin/app" if number < 4 else "etc/conf")
    os.mkfifo(made / "fifo")
    for path in [*made.rglob("*"), made]:
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return made


@pytest.fixture
def spare(firmware: Firmware) -> Path:
    """Install three releases and clean, so that there is a spare; return its path."""
    for number in (1, 2, 3):
        firmware.install(firmware.pack_tree(tree(firmware, number)))
    install.clean(firmware.target)
    assert sorted(os.listdir(firmware.target)) == [".fussy", "current", "fw-2", "fw-3"]
    return firmware.target / ".fussy/spare"


def from_links(firmware: Firmware, bundle: Path) -> dict[str, tuple[object, ...]]:
    """Return the picture of what the full BUNDLE makes in another target, in which there is no spare."""
    other = Firmware(firmware.place, firmware.keys)
    other.target = firmware.place / "other"
    return picture(other.install(bundle))


@pytest.mark.parametrize("delta", [False, True], ids=["full", "delta"])
def test_the_release_is_the_one_made_of_links(firmware: Firmware, spare: Path, delta: bool) -> None:
    made = tree(firmware, 4)
    base = firmware.target / "fw-3"
    full = firmware.pack_tree(made)
    before = {name: picture(firmware.target / name) for name in ("fw-2", "fw-3")}
    stays = (spare / "usr/1").stat().st_ino, (spare / "kept-link").lstat().st_ino, spare.stat().st_ino
    release = firmware.install(firmware.pack_tree(made, base=base) if delta else full)
    assert picture(release) == from_links(firmware, full)
    assert verify.damage(release) == []
    assert ((release / "usr/1").stat().st_ino, (release / "kept-link").lstat().st_ino, release.stat().st_ino) == stays
    assert [(release / name).stat().st_nlink for name in CRONTABS] == [1, 1], "cron refuses those with a second name"
    assert (release / "usr/1/1").samefile(base / "usr/1/1") and (release / "moved/to").samefile(base / "moved/from")
    assert {name: picture(firmware.target / name) for name in before} == before
    assert not spare.exists() and os.listdir(firmware.target / ".fussy/staging") == []
    records = checked.load(targets.find(firmware.target))
    files = [path for path in (release / "usr").rglob("*") if path.is_file()]
    assert len(files) == 50 and all(records[path.stat().st_ino].holds(path.stat()) for path in files)


def test_clean_leaves_what_is_shared_of_the_youngest(firmware: Firmware, spare: Path) -> None:
    assert (spare / "usr/0/0").samefile(firmware.target / "current/usr/0/0")
    assert not (spare / "version").exists() and not (spare / "own").is_symlink()
    assert (spare / "own").samefile(firmware.target / "current/own")
    install.clean(firmware.target)
    assert (spare / "usr/0/0").stat().st_nlink == 3
    firmware.install(firmware.pack("fw-5", {"another": "one"}))
    firmware.install(firmware.pack("fw-6", {"another": "one"}))
    assert not spare.exists(), "it had too little in common"
    install.clean(firmware.target)
    assert sorted(path.name for path in spare.iterdir()) == sorted(
        {Path(name).parts[0] for name in OLD if "/" in name} | {".fussy", "fifo", "kept-link", "link"})


def test_no_file_is_read_again_when_the_spare_is_of_no_use(
        firmware: Firmware, spare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: SAME[name] for name in list(SAME)[:12]}
    monkeypatch.setattr(share.tree, "differences", lambda path, *_: pytest.fail(f"{path} is compared"))
    release = firmware.install(firmware.pack("fw-4", few | {f"new/{i}": f"{i}" for i in range(60)}))
    assert not spare.exists()
    assert all((release / name).samefile(firmware.target / "fw-3" / name) for name in few)


def in_place(spare: Path, elsewhere: Path) -> None:
    facts = (spare / "usr/0/0").stat()
    (spare / "usr/0/0").write_text("SAME 0 0")
    os.utime(spare / "usr/0/0", ns=(facts.st_atime_ns, facts.st_mtime_ns))


def another_file(spare: Path, elsewhere: Path) -> None:
    (spare / "usr/0/0").unlink()
    (spare / "usr/0/0").write_text("same 0 0")


def file_to_link(spare: Path, elsewhere: Path) -> None:
    (spare / "usr/0/0").unlink()
    (spare / "usr/0/0").symlink_to(elsewhere / "precious")


def directory_to_link(spare: Path, elsewhere: Path) -> None:
    shutil.rmtree(spare / "usr/0")
    (spare / "usr/0").symlink_to(elsewhere)


def further_name(spare: Path, elsewhere: Path) -> None:
    (spare / "usr/0/again").unlink()
    os.link(spare / "usr/1/1", spare / "usr/0/again")


def more(spare: Path, elsewhere: Path) -> None:
    (spare / "usr/more").mkdir()
    (spare / "usr/more/file").touch()
    (spare / ".fussy/more").touch()
    (spare / "to").symlink_to(elsewhere)


def facts(spare: Path, elsewhere: Path) -> None:
    (spare / "usr/1").chmod(0o777)
    os.setxattr(spare / "usr/2", "user.more", b"more")
    os.chown(spare / "kept-link", 12, 34, follow_symlinks=False)
    os.utime(spare, (5, 5))


def half(spare: Path, elsewhere: Path) -> None:
    shutil.rmtree(spare / "usr/3")


@pytest.mark.parametrize("alter", [in_place, another_file, file_to_link, directory_to_link, further_name, more, facts,
                                   half])
def test_nothing_altered_comes_along(
    firmware: Firmware, spare: Path, tmp_path: Path, alter: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    stays = (spare / "bin").stat().st_ino
    alter(spare, elsewhere)
    full = firmware.pack_tree(tree(firmware, 4))
    release = firmware.install(full)
    assert picture(release) == from_links(firmware, full)
    assert (release / "bin").stat().st_ino == stays
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    assert (elsewhere / "precious").read_text() == "precious" and (elsewhere / "precious").stat().st_nlink == 1


def test_without_records_of_what_is_whole_the_release_is_made_of_links(firmware: Firmware, spare: Path) -> None:
    (firmware.target / ".fussy/checked").unlink()
    release = firmware.install(firmware.pack_tree(tree(firmware, 4)))
    assert verify.damage(release) == [] and not spare.exists()
    assert (release / "usr/1/1").samefile(firmware.target / "fw-3/usr/1/1")


def test_a_refused_bundle_leaves_the_spare_alone(firmware: Firmware, spare: Path) -> None:
    before = picture(spare)
    bundle = firmware.pack_tree(tree(firmware, 4), compatible=["another-board"])
    assert "the firmware is for another-board" in firmware.run("install", bundle, fails=22)
    assert picture(spare) == before


def test_a_tree_packed_by_hand_leaves_the_spare_alone(firmware: Firmware, spare: Path) -> None:
    before = picture(spare)
    assert verify.damage(firmware.install(firmware.pack_by_hand("fw-4", {"a": "a"}))) == []
    assert picture(spare) == before


def wide(number: int, directories: int = 60, files: int = 0) -> dict[str, str]:
    """Return the files of a release with so many directories, and so many files beside them."""
    return {**{f"d{i}/f": f"{i}" for i in range(directories)}, **{f"f{i}": "" for i in range(files)},
            "version": str(number)}


def test_where_room_is_short_the_spare_goes(firmware: Firmware, small_disk: Path) -> None:
    """It holds 62 inodes. A release made of it needs 30; made of links, 70, of which there are 82 then, and not 20."""
    firmware.target = small_disk / "opt"
    for number in (1, 2, 3):
        firmware.install(firmware.pack(f"fw-{number}", wide(number)))
    firmware.run("clean")
    spare = firmware.target / ".fussy/spare"
    bundles = [firmware.pack("fw-4", wide(4, 40, 30)), firmware.pack("fw-5", wide(5, 60, 90))]
    for i in range(os.statvfs(small_disk).f_favail - 20):
        (small_disk / str(i)).touch()
    assert spare.is_dir()
    assert verify.damage(firmware.install(bundles[0])) == []
    assert not spare.exists()
    assert "inodes in" in firmware.run("install", bundles[1], fails=23)


def test_no_spare_is_kept_of_what_is_cleaned_away_for_room(firmware: Firmware, spare: Path) -> None:
    firmware.run("clean")
    assert spare.is_dir()
    firmware.run("clean", "--no-spare")
    assert not spare.exists()
    firmware.install(firmware.pack("fw-5", SAME))
    firmware.run("clean", "--no-spare")
    assert (sorted(os.listdir(firmware.target)), spare.exists()) == ([".fussy", "current", "fw-3", "fw-5"], False)
    release = firmware.install(firmware.pack_tree(tree(firmware, 4)))
    assert verify.damage(release) == [] and (release / "usr/1/1").samefile(firmware.target / "fw-5/usr/1/1")


def test_a_spare_that_is_no_directory_is_named_to_whoever_cleans(tmp_path: Path) -> None:
    spare = tmp_path / ".fussy/spare"
    spare.parent.mkdir()
    spare.touch()
    done = CliRunner().invoke(fussy_command, ["clean", "--target", str(tmp_path), "--logfile", str(tmp_path / "log")])
    assert (done.exit_code, done.output) == (40, f"fussy clean: cannot go on: {spare}: Not a directory\n")
