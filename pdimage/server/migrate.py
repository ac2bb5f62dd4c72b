"""Brings the database to the present form (alembic), once, however many processes start at the same time."""

from pathlib import Path

import sqlalchemy as sa

from fussy.errors import SystemSetup

_DIRECTORY = Path(__file__).parent / "migrations"
# The newest migration; who finds it in the database need not load alembic.
NEWEST = max(file.name.partition("_")[0] for file in (_DIRECTORY / "versions").glob("[0-9]*.py"))
_LOCK = 0x7064696D


def migrate(engine: sa.Engine) -> None:
    """Run the migrations that the database does not have.

    :raises SystemSetup: it does not answer, or was made by a newer version
    """
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            if _revision(connection) != NEWEST:
                _upgrade(connection)
    except sa.exc.OperationalError as error:
        raise SystemSetup(f"cannot use the database {engine.url.render_as_string()}: {error.orig}; see the setting "
                          "database") from error


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return str(found) if found else None


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SystemSetup(f"cannot use the database: {error}; it was made by a newer version of pdimage") from error
