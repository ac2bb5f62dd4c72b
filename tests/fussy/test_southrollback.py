"""Database migrations taken back by a real Django, before an older release becomes current."""

import doctest
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fussy import disk, southrollback
from fussy.errors import FussyError, SystemSetup
from fussy.southrollback import find_reverse_upgrades, roll_back

pytest.importorskip("django", reason="Django is missing: install the test extra")

ADMIN = os.fspath(Path(sys.executable).with_name("django-admin"))
PATH = "site/chutes/migrations"

MIGRATION = """
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = {dependencies}
    operations = [{operation}]
"""
INITIAL = """migrations.CreateModel("Chute", [
    ("id", models.AutoField(primary_key=True, serialize=False)), ("name", models.TextField())])"""


class Site:
    """A target with releases of a Django site, and the site's database outside of them."""

    def __init__(self, root: Path) -> None:
        self.target = root / "firmware"
        self.target.mkdir()
        self.database = root / "data" / "site.sqlite"
        self.database.parent.mkdir()

    def release(self, name: str, *fields: str) -> Path:
        """Make a release whose app has a first migration and one more for each of FIELDS."""
        migrations = self.target / name / PATH
        migrations.mkdir(parents=True)
        for path in (migrations.parent / "__init__.py", migrations / "__init__.py"):
            path.touch()
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.fspath(self.database)}
        (migrations.parent.parent / "settings.py").write_text(
            f"DATABASES = {{'default': {database}}}\nINSTALLED_APPS = ['chutes']\nSECRET_KEY = 'test'\n")
        self.migration(name, "0001_initial", INITIAL)
        before = "0001_initial"
        for number, field in enumerate(fields, 2):
            this = f"{number:04}_{field}"
            self.migration(name, this, add(field), before)
            before = this
        return self.target / name

    def migration(self, release: str, name: str, operation: str, *before: str) -> None:
        text = MIGRATION.format(dependencies=[("chutes", other) for other in before], operation=operation)
        (self.target / release / PATH / f"{name}.py").write_text(text)

    def swap(self, name: str) -> None:
        disk.swap_link(self.target / "current", name)

    def migrate(self) -> None:
        """Do what the ``.post-install`` of the current release does."""
        subprocess.run([ADMIN, "migrate", "--noinput"], check=True, timeout=60, stdout=subprocess.DEVNULL)

    def columns(self) -> list[str]:
        """Return the columns of the app's table, as the database says."""
        connection = sqlite3.connect(self.database)
        try:
            return [row[1] for row in connection.execute("PRAGMA table_info(chutes_chute)")]
        finally:
            connection.close()

    def insert(self, name: str) -> None:
        connection = sqlite3.connect(self.database)
        with connection:
            connection.execute("INSERT INTO chutes_chute (name) VALUES (?)", (name,))
        connection.close()


def add(field: str) -> str:
    return f'migrations.AddField("Chute", "{field}", models.TextField(null=True))'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    monkeypatch.setenv("PYTHONPATH", os.fspath(made.target / "current" / "site"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return made


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(southrollback.get_options(), [os.fspath(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_downgrade_and_upgrade(site: Site) -> None:
    """The release to come knows two of three migrations; the table goes back, and its rows stay."""
    old, new = site.release("firmware-1", "ssid"), site.release("firmware-2", "ssid", "vlan")
    site.swap("firmware-2")
    site.migrate()
    site.insert("hello")
    assert site.columns() == ["id", "name", "ssid", "vlan"]
    arguments = ("-f", old, "-p", PATH, "-a", "chutes", "-d", ADMIN)
    assert run(*arguments) == (0, "chutes: back to 0002_ssid\n", "")
    assert site.columns() == ["id", "name", "ssid"]
    assert run(*arguments)[0] == 0  # a hook may run twice
    site.swap("firmware-1")
    site.migrate()
    assert site.columns() == ["id", "name", "ssid"]
    connection = sqlite3.connect(site.database)
    assert connection.execute("SELECT name FROM chutes_chute").fetchall() == [("hello",)]
    connection.close()

    code, output, _ = run("--final_target", new, "--path", PATH, "--app", "chutes", "--django-admin", "/nonexistent")
    assert (code, output) == (0, "chutes: nothing to take back\n")
    site.swap("firmware-2")
    site.migrate()
    assert site.columns() == ["id", "name", "ssid", "vlan"]


def test_histories_that_part(site: Site) -> None:
    """Another migration with the same number is not the same: back to the last common one."""
    site.release("firmware-1", "ssid", "vlan")
    other = site.release("firmware-2", "ssid", "band", "vlan")
    site.swap("firmware-1")
    site.migrate()
    assert roll_back(other, PATH, "chutes", ADMIN) == "0002_ssid"
    assert site.columns() == ["id", "name", "ssid"]
    site.swap("firmware-2")
    site.migrate()
    assert site.columns() == ["id", "name", "ssid", "band", "vlan"]


def test_all_tables_go_only_if_that_is_said(site: Site) -> None:
    site.release("firmware-2", "ssid")
    empty = site.target / "firmware-1"
    empty.mkdir()
    site.swap("firmware-2")
    site.migrate()
    assert find_reverse_upgrades(empty, PATH) == "zero"
    arguments = ("-f", empty, "-p", PATH, "-a", "chutes", "-d", ADMIN)
    code, output, error = run(*arguments)
    assert (code, output) == (1, "")
    assert error == (f"fussy-southrollback: cannot take back the migrations of chutes: {empty} has none in common with "
                     "the current release, so this would drop all its tables; use --zero if that is meant\n")
    assert site.columns() == ["id", "name", "ssid"]
    assert run(*arguments, "--zero") == (0, "chutes: back to zero\n", "")
    assert site.columns() == []


def test_what_a_branch_leaves_is_told(site: Site) -> None:
    """Going back to 0002_band takes back the merge, but not the branch that does not depend on it."""
    old = site.release("firmware-1", "band")
    site.release("firmware-2", "band")
    site.migration("firmware-2", "0002_ssid", add("ssid"), "0001_initial")
    site.migration("firmware-2", "0003_merge", "", "0002_band", "0002_ssid")
    site.swap("firmware-2")
    site.migrate()
    with pytest.raises(FussyError, match="cannot take back all migrations of chutes: 0002_ssid do not depend on "
                                         "0002_band; take them back with django-admin migrate"):
        roll_back(old, PATH, "chutes", ADMIN)


def test_what_django_cannot_take_back(site: Site) -> None:
    old = site.release("firmware-1")
    site.release("firmware-2")
    site.migration("firmware-2", "0002_data", "migrations.RunPython(lambda apps, editor: None)", "0001_initial")
    site.swap("firmware-2")
    site.migrate()
    code, output, error = run("-f", old, "-p", PATH, "-a", "chutes", "-d", ADMIN)
    assert (code, output) == (1, "")
    assert error.startswith(f"fussy-southrollback: cannot take back migrations: {ADMIN} migrate --noinput chutes "
                            "0001_initial ended with 1: django.db.migrations.exceptions.IrreversibleError: ")
    assert error.count("\n") == 1


def test_in_a_real_hook(site: Site) -> None:
    """As documented: called by ``.pre-install`` of the older release, with the installed command."""
    old = site.release("firmware-1", "ssid")
    site.release("firmware-2", "ssid", "vlan")
    site.swap("firmware-2")
    site.migrate()
    hook = old / ".pre-install"
    hook.write_text(f'#!/bin/sh -e\nPATH="{Path(sys.executable).parent}:$PATH"\n'
                    f'fussy-southrollback --final_target "$1" --path {PATH} --app chutes\n')
    hook.chmod(0o755)
    done = subprocess.run([hook, old], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "chutes: back to 0002_ssid\n"
    assert site.columns() == ["id", "name", "ssid"]


def directory(site: Site, release: str, *names: str) -> Path:
    path = site.target / release
    (path / PATH).mkdir(parents=True)
    for name in names:
        (path / PATH / name).touch()
    return path


@pytest.mark.parametrize(("current", "coming", "expected"), [
    (["0001_a.py"], ["0001_a.py"], None),
    (["0001_a.py", "0002_b.py"], ["0001_a.py", "0002_b.py", "0003_c.py"], None),
    (["0001_a.py", "0003_c.py"], ["0001_a.py", "0002_b.py", "0003_c.py"], None),
    (["0001_a.py", "0002_b.py", "0003_c.py"], ["0001_a.py"], "0001_a"),
    (["0001_a.py", "0002_b.py", "0003_c.py"], ["0001_a.py", "0003_c.py"], "0001_a"),
    (["0001_a.py"], ["0001_b.py"], "zero"),
    (["0001_a.py"], [], "zero"),
    ([], ["0001_a.py"], None),
    (["0001_a.py", "__init__.py", "0002_b.pyc", "notes.txt"], ["0001_a.py"], None),
])
def test_find_reverse_upgrades(site: Site, current: list[str], coming: list[str], expected: str | None) -> None:
    directory(site, "firmware-1", *current)
    site.swap("firmware-1")
    assert find_reverse_upgrades(directory(site, "firmware-2", *coming), PATH) == expected


def test_another_pattern(site: Site) -> None:
    directory(site, "firmware-1", "m1.sql", "m2.sql")
    site.swap("firmware-1")
    assert find_reverse_upgrades(directory(site, "firmware-2", "m1.sql"), PATH, "*.sql") == "m1.sql"


def test_the_release_may_be_given_in_any_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    directory(site, "firmware-1", "0001_a.py", "0002_b.py")
    site.swap("firmware-1")
    coming = directory(site, "firmware-2", "0001_a.py")
    monkeypatch.chdir(coming)
    for way in (f"{coming}/", ".", "../firmware-2"):
        assert find_reverse_upgrades(way, PATH) == "0001_a"


def test_nothing_is_current(site: Site) -> None:
    assert find_reverse_upgrades(directory(site, "firmware-1", "0001_a.py"), PATH) is None


def test_mistakes_are_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    coming = directory(site, "firmware-1", "0001_a.py")
    directory(site, "firmware-2", "0001_a.py", "0002_b.py")
    site.swap("firmware-2")
    with pytest.raises(SystemSetup, match="neither .*/current/no nor .*/firmware-1/no is a directory; check --path"):
        find_reverse_upgrades(coming, "no")
    with pytest.raises(SystemSetup, match="is not relative to a release; check --path"):
        find_reverse_upgrades(coming, coming / PATH)
    with pytest.raises(SystemSetup, match="is not a directory; check --final_target"):
        find_reverse_upgrades(site.target / "no", PATH)
    (site.target / "firmware-3" / "site" / "chutes").mkdir(parents=True)
    (site.target / "firmware-3" / PATH).write_text("a file")
    with pytest.raises(SystemSetup, match="Not a directory; check --path"):
        find_reverse_upgrades(site.target / "firmware-3", PATH)
    with pytest.raises(SystemSetup, match="cannot run /no/such: No such file or directory; name it with"):
        roll_back(coming, PATH, "chutes", "/no/such")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    with pytest.raises(SystemSetup, match="DJANGO_SETTINGS_MODULE is not set"):
        roll_back(coming, PATH, "chutes", ADMIN)
    assert run("-f", coming, "-p", PATH)[0] == 2
    assert run("-f", coming, "-a", "chutes")[0] == 2
    assert run("-p", PATH, "-a", "chutes")[0] == 2


def test_examples() -> None:
    assert doctest.testmod(southrollback).failed == 0
