"""What the runtime's page says is so: descriptors, settings, commands, HTTP operations."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from paradrop import main as daemon
from paradrop.backend.pdfcd import opaccounts, opchanges, opchutes, opidentity, oprouter
from paradrop.lib import descriptor
from paradrop.tools.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "pdimage/paradrop/README.rst").read_text()


def commands() -> list[str]:
    return re.findall(r"^    \$ paradrop (.+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", commands())
def test_commands_are_known(line: str) -> None:
    command: click.Command = main
    words = shlex.split(line)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    if any(parameter.name == "password" for parameter in command.params):
        words += ["--password", "so that it does not ask"]
    command.make_context("paradrop", words).close()


def test_all_commands_are_there() -> None:
    groups = {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    known = {f"{name} {verb}" for name, group in groups.items() for verb in group.commands} | main.commands.keys()
    told = {" ".join(line.split()[:2 if line.split()[0] in groups else 1]) for line in commands()}
    assert told == known - groups.keys()


def test_the_daemon_takes_its_arguments() -> None:
    for line in re.findall(r"^    \$ python -m paradrop\.main([^#\n]*)", PAGE, re.MULTILINE):
        daemon.parse_arguments(shlex.split(line))


def test_settings_have_their_defaults() -> None:
    source = (Path(daemon.__file__).parent / "lib/settings.py").read_text()
    rows = re.findall(r"^([A-Z][A-Z0-9_]+) {2,}(.+?) {2,}\S", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for name, default in rows:
        assert re.search(rf'^{name} = "?{re.escape(default)}"?$', source, re.MULTILINE), name


def test_descriptors_are_right() -> None:
    blocks = re.findall(r"code-block:: yaml\n\n((?:    .*\n|\n)+)", PAGE)
    old, new = (descriptor.parse(yaml.safe_load(block)) for block in blocks)
    assert old.name == "virtual-router" and old.firewall[0].port == 8080
    assert [service.name for service in new.services] == ["web", "store"]


def test_operations_are_there() -> None:
    modules = (opaccounts, opchanges, opchutes, opidentity, oprouter)
    known = {(operation.method, operation.path) for module in modules for operation in module.OPERATIONS}
    told = set(re.findall(r"^    (GET|POST|PUT|DELETE) +(/api/\S+) ", PAGE, re.MULTILINE))
    assert len(told) > 10 and told <= known, told - known
