"""The tables of the database (SQLAlchemy Core), and the connection to it. Migrations make them: ``migrations/``.

The database is the only truth about requests. A request is in one of these states::

            accept            claim              finish
    (none) --------> queued --------> building --------> done
                       ^  ^             |   |
                       |  |  lease over |   | fail
                       |  +-------------+   v
                       +--------------- failed        asked for again after failure_seconds, or flushed

Times are Unix seconds.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text

metadata = MetaData()

requests = Table(
    "requests", metadata,
    Column("hash", String(64), primary_key=True),
    Column("request", Text, nullable=False),
    Column("defaults", Text, nullable=False),
    Column("client", String(80), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("stage", String(32), nullable=False, server_default=""),
    Column("accepted", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float, index=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("worker", String(128), nullable=False, server_default=""),
    Column("lease", String(64), nullable=False, server_default=""),
    Column("lease_until", Float),
    Column("failure", String(16), nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("hits", Integer, nullable=False, server_default="0"),
)
sa.Index("requests_client_accepted", requests.c.client, requests.c.accepted)

logs = Table(
    "logs", metadata,
    Column("hash", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)

images = Table(
    "images", metadata,
    Column("request_hash", String(64), primary_key=True),
    Column("image_hash", String(64), nullable=False, index=True),
    Column("manifest_hash", String(64), nullable=False, index=True),
    Column("distro", String(32), nullable=False),
    Column("version", String(64), nullable=False),
    Column("target", String(65), nullable=False),
    Column("profile", String(100), nullable=False),
    Column("defaults_hash", String(64), nullable=False),
    Column("snapshot", Integer, nullable=False),
    Column("worker", String(128), nullable=False),
    Column("built", Float, nullable=False, index=True),
    Column("build_seconds", Float, nullable=False),
    Column("sysupgrade", String(200), nullable=False),
    Column("files", Text, nullable=False),
    Column("details", Text, nullable=False),
)

manifests = Table(
    "manifests", metadata,
    Column("hash", String(64), primary_key=True),
    Column("packages", Text, nullable=False),
)

targets = Table(
    "targets", metadata,
    Column("distro", String(32), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("target", String(65), primary_key=True),
    Column("synced", Float, nullable=False),
    Column("found", Text, nullable=False),
    Column("error", Text, nullable=False, server_default=""),
)

# Routers that are led from a page (visits.py). The token itself is not kept, only its SHA-256.
visits = Table(
    "visits", metadata,
    Column("token", String(64), primary_key=True),
    Column("device", Text, nullable=False),
    Column("request_hash", String(64), nullable=False, server_default=""),
    Column("go", Integer, nullable=False, server_default="0"),
    Column("stage", String(16), nullable=False, server_default="waiting"),
    Column("text", Text, nullable=False, server_default=""),
    Column("percent", Integer, nullable=False, server_default="0"),
    Column("seen", Float, nullable=False),
    Column("until", Float, nullable=False, index=True),
)

# What was built is counted for good; images themselves are collected. kind: package, target, version, day, image, ...
counts = Table(
    "counts", metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("seconds", Float, nullable=False, server_default="0"),
)


def connect(url: str) -> sa.Engine:
    """Return an engine for the database at URL. SQLite gets a journal that readers need not wait for."""
    if url.startswith("sqlite"):
        database = sa.make_url(url).database
        if database:
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": 30}, pool_size=8, max_overflow=32)
        sa.event.listen(engine, "connect", _sqlite)
        sa.event.listen(engine, "begin", _begin)
        return engine
    options = {"connect_timeout": 5} if url.startswith("postgresql") else {}
    return sa.create_engine(url, connect_args=options, pool_pre_ping=True, pool_size=8, max_overflow=32,
                            pool_timeout=10)


def reading(engine: sa.Engine) -> sa.Connection:
    """Return a connection of who only reads: it does not wait for those that write."""
    return engine.connect().execution_options(reading=True)


def _sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # so that _begin decides how transactions begin
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}")


def _begin(connection: sa.Connection) -> None:
    """Begin as who will write: two that read first and write then would be in each other's way (SQLITE_BUSY)."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
