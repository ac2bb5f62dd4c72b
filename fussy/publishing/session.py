"""What every sub-command of ``fussy-publish`` shares: which channel, which keys, how results are shown."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fussy.commands import command
from fussy.errors import SystemSetup
from fussy.publishing import keyfiles, places, settle

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Session:
    """The channel of a command line, and the keys that may sign on this machine."""

    where: places.Places
    extra: Sequence[Path]
    passphrase_file: Path | None

    def ask(self, path: Path) -> str:
        """Return the pass-phrase of a key: from the file, or typed on the terminal.

        :raises SystemSetup: there is neither
        """
        if self.passphrase_file:
            return first_line(self.passphrase_file)
        if not sys.stdin.isatty():
            raise SystemSetup(f"cannot use the key {path}: it has a pass-phrase; give it with --key-passphrase-file")
        typed: str = click.prompt(f"Pass-phrase of {path}", hide_input=True, err=True)
        return typed

    def ring(self) -> keyfiles.Ring:
        return keyfiles.ring(self.where.keys, self.extra, self.ask)

    @contextmanager
    def working(self) -> Iterator[settle.Work]:
        """See :func:`fussy.publishing.settle.working`."""
        with settle.working(self.where, self.ring()) as work:
            yield work


def first_line(path: Path) -> str:
    """Return the first line of a pass-phrase file."""
    from fussy.keys import read_passphrase

    return read_passphrase(path).decode()


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function, whose first argument is the session, a sub-command."""

    def make(function: Callable[..., Any]) -> click.Command:
        return command(name)(click.pass_obj(function))

    return make


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def pairs(values: Sequence[str], what: str) -> list[tuple[str, str]]:
    """Split values of the form NAME=VALUE.

    :raises click.UsageError: one has another form
    """
    split = [value.partition("=") for value in values]
    if wrong := ["".join(parts) for parts in split if not all(parts)]:
        raise click.UsageError(f"write {what} as ROLE=VALUE, not {wrong[0]}")
    return [(name, rest) for name, _, rest in split]


def show(document: Any) -> None:
    """Print a result as JSON."""
    import json

    click.echo(json.dumps(document, indent=2))


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count} B"


def given(**facts: object) -> Mapping[str, object]:
    """Return the facts that an option was given for."""
    return {name: value for name, value in facts.items() if value is not None}
