"""INSERT that minds what is there, in the one spelling that SQLite and PostgreSQL share."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def insert_new(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row; what has its key already stays as it is."""
    connection.execute(_insert(connection, table).values(row).on_conflict_do_nothing())


def replace(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row in place of what has its key."""
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table).values(row)
    connection.execute(statement.on_conflict_do_update(
        index_elements=keys, set_={name: row[name] for name in row if name not in keys}))


def add(connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], amounts: Mapping[str, Any]) -> None:
    """Add numbers to those of the row with this key, or begin with them."""
    statement = _insert(connection, table).values({**key, **amounts})
    connection.execute(statement.on_conflict_do_update(
        index_elements=list(key), set_={name: table.c[name] + amount for name, amount in amounts.items()}))


def insert_all_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; where something in the way is there already, it stays as it is."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)
