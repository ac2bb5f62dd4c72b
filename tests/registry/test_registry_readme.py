"""What the README of the registry shows is what happens, and its table of roles is the one that counts."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import pdimage.server.registry
from paradrop.tools.cli import main
from pdimage.cli import pdimage_command
from pdimage.server.registry.permissions import ACTIONS, Allowed
from tests.registry.conftest import PASSWORD
from tests.server.conftest import Start
from tests.server.test_server_readme import commands

README = Path(str(pdimage.server.registry.__file__)).with_name("README.rst").read_text()
# What differs from day to day and from run to run.
CHANGES = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\dZ|([0-9a-f]{4}-){4}[0-9a-f]{4}|\b[0-9a-f]{16}\b|^[\w-]{43}$",
                     re.MULTILINE)


def test_the_commands_do_what_is_shown(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start("--no-worker")
    monkeypatch.chdir(server.data)
    environment = {"PARADROP_PASSWORD": PASSWORD, "PARADROP_CONFIG_DIR": str(tmp_path / "config")}
    shown = [(command, said) for command, said in commands(README) if command.startswith(("paradrop ", "pdimage "))]
    assert len(shown) == 8
    for command, said in shown:
        program, *words = command.replace("http://127.0.0.1:8000", server.url).split()
        where = ["-d", str(server.data)] if program == "pdimage" else []
        done = CliRunner().invoke(main if program == "paradrop" else pdimage_command, [*words, *where], env=environment)
        assert CHANGES.sub("X", done.output) == CHANGES.sub("X", said), command
        assert done.exit_code == 0


def test_the_table_of_roles() -> None:
    rows = re.findall(r"^(\w+\.\w+) +(yes|no) +(\w+) +(\w+) +(\w+) +(\w+)  ", README, re.MULTILINE)
    assert {name: Allowed(reads == "yes", *reaches) for name, reads, *reaches in rows} == ACTIONS
