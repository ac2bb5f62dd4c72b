"""``pdimage accounts``: the accounts of a server, for who has its settings and its database.

The first administrator is made so; he can lead the others through the API.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fussy.commands import Command
from fussy.errors import FussyError
from fussy.moments import utc
from pdimage.server.cli import config_option, data_option, read_settings
from pdimage.server.registry.permissions import ROLES, Role

if TYPE_CHECKING:
    from pdimage.server.registry.accounts import Accounts

_name = click.argument("name")


@click.group("accounts")
def accounts_group() -> None:
    """Make accounts of a server, list, lock, unlock and delete them, give them roles and new passwords."""


@accounts_group.command("add", cls=Command)
@config_option
@data_option
@click.option("--role", type=click.Choice(ROLES), default="user", show_default=True)
@_name
def add(config: Path | None, data: str | None, role: Role, name: str) -> None:
    """Make an account. Its password is asked for, or comes from PARADROP_PASSWORD."""
    from pdimage.server.registry.accounts import check_name, check_password
    from pdimage.server.registry.audit import SERVER
    from pdimage.server.registry.passwords import Passwords

    with _accounts(config, data) as accounts:
        check_name(name, accounts.settings)
        password = os.environ.get("PARADROP_PASSWORD") or click.prompt(
            "Password", hide_input=True, confirmation_prompt=True)
        made = accounts.add(name, Passwords().digest_now(check_password(password)), role, SERVER)
    click.echo(f"{made.name}: {made.role}")


@accounts_group.command("list", cls=Command)
@config_option
@data_option
def list_all(config: Path | None, data: str | None) -> None:
    """List the accounts."""
    with _accounts(config, data) as accounts:
        for account in accounts.all():
            state = "  locked" * account.locked + "  invited" * account.invited
            click.echo(f"{account.name:32}  {account.role:8}  {utc(account.made, 'minute')}{state}")


@accounts_group.command("role", cls=Command)
@config_option
@data_option
@_name
@click.argument("role", type=click.Choice(ROLES))
def give_role(config: Path | None, data: str | None, name: str, role: Role) -> None:
    """Give an account another role; it counts at once."""
    _change(config, data, name, role=role)


@accounts_group.command("lock", cls=Command)
@config_option
@data_option
@_name
def lock(config: Path | None, data: str | None, name: str) -> None:
    """Lock an account: its logins and tokens end, and nobody can log in to it."""
    _change(config, data, name, locked=True)


@accounts_group.command("unlock", cls=Command)
@config_option
@data_option
@_name
def unlock(config: Path | None, data: str | None, name: str) -> None:
    """Unlock an account."""
    _change(config, data, name, locked=False)


@accounts_group.command("delete", cls=Command)
@config_option
@data_option
@_name
def delete(config: Path | None, data: str | None, name: str) -> None:
    """Forget an account that has no routers, with its groups and roll-outs."""
    from pdimage.server.registry.audit import SERVER

    with _accounts(config, data) as accounts:
        accounts.delete(name, SERVER)
    click.echo(f"{name} is deleted")


@accounts_group.command("reset", cls=Command)
@config_option
@data_option
@_name
def reset(config: Path | None, data: str | None, name: str) -> None:
    """Issue a code with which an account's password can be set once: paradrop reset."""
    from pdimage.server.registry.audit import SERVER

    with _accounts(config, data) as accounts:
        code, until = accounts.new_code(name, SERVER)
    click.echo(f"{code}  (until {utc(until, 'minute')})")


@accounts_group.command("invite", cls=Command)
@config_option
@data_option
@_name
def invite(config: Path | None, data: str | None, name: str) -> None:
    """Issue a code with which somebody can register a name: paradrop register --invited."""
    from pdimage.server.registry.accounts import check_name
    from pdimage.server.registry.audit import SERVER

    with _accounts(config, data) as accounts:
        code, until = accounts.invite(check_name(name, accounts.settings), SERVER)
    click.echo(f"{code}  (until {utc(until, 'minute')})")


def _change(config: Path | None, data: str | None, name: str, *, role: Role | None = None, locked: bool | None = None,
            ) -> None:
    from pdimage.server.registry.audit import SERVER

    with _accounts(config, data) as accounts:
        account = accounts.change(name, role, locked, SERVER)
    click.echo(f"{account.name}: {account.role}{', locked' * account.locked}")


@contextmanager
def _accounts(config: Path | None, data: str | None) -> "Iterator[Accounts]":
    """Have the accounts of a server; what is refused ends the command in one line."""
    from pdimage.server import tables
    from pdimage.server.migrate import migrate
    from pdimage.server.refusals import Refused
    from pdimage.server.registry.desk import make_registry

    settings = read_settings(config, False, data=data)
    engine = tables.connect(settings.database_url)
    try:
        migrate(engine)
        yield make_registry(settings, engine).accounts
    except Refused as error:
        raise FussyError(f"cannot do that: {error.error}") from error
    finally:
        engine.dispose()
