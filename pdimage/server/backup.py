"""``pdimage backup`` and ``pdimage restore``: what can't be had again, in one file.

That is the database, the signing keys and the registry's authority; with images also the store. The archive is a tar:

- ``backup.json``  what it is: format, version, kind of the database
- ``database``     a copy of the SQLite file, or what ``pg_dump --format=custom`` writes
- ``keys/``        the signing keys
- ``registry/``    the authority that routers know
- ``store/``       the images, if they were asked for

The server may run meanwhile: the copy of the database is of one moment.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

import fussy
from fussy import disk
from fussy.errors import FussyError, SystemSetup
from pdimage import scratch
from pdimage.server import artifacts
from pdimage.server.settings import Settings

_FORMAT = 1


def backup(settings: Settings, file: Path, *, images: bool) -> None:
    """Write a backup to FILE, readable by its owner alone; with IMAGES also of the store.

    :raises FussyError: something can't be read or written; FILE is then as it was
    """
    if images and not artifacts.connect(settings).directory:
        raise FussyError("cannot back up the images: they are in an object store; copy its bucket with its own tools")
    with scratch.directory(file.absolute().parent, file.name) as place:
        half = place / "backup"
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as output, tarfile.open(fileobj=output, mode="w|") as archive:
            label = place / "backup.json"
            label.write_text(json.dumps({"format": _FORMAT, "version": fussy.__version__, "database": _kind(settings)}))
            archive.add(label, label.name)
            database = place / "database"
            _copy_database(settings, database)
            archive.add(database, database.name)
            if settings.keys.is_dir():
                archive.add(settings.keys, "keys", filter=_plain)
            if (settings.root / "registry").is_dir():
                archive.add(settings.root / "registry", "registry", filter=_plain)
            if images:
                archive.add(str(artifacts.connect(settings).directory), "store", filter=_plain)
            archive.close()
            output.flush()
            os.fsync(output.fileno())
        half.replace(file)
        disk.sync_directory(file.absolute().parent)


def restore(settings: Settings, file: Path) -> None:
    """Put a backup into the directory of a server, which must be empty or missing.

    A PostgreSQL database is filled; it must be empty too.

    :raises FussyError: the file is no backup, or there is something in its way
    """
    root = settings.root
    if root.is_dir() and any(root.iterdir()):
        raise FussyError(f"cannot restore into {root}: there is something in it; name an empty directory with --data")
    root.parent.mkdir(parents=True, exist_ok=True)
    with scratch.directory(root.parent, root.name) as place:
        try:
            with tarfile.open(file) as archive:
                archive.extractall(place, filter="data")
            told = json.loads((place / "backup.json").read_text())
        except (OSError, tarfile.TarError, ValueError) as error:
            raise FussyError(f"cannot restore from {file}: it is no backup, or not a whole one: {error}") from error
        if told.get("format") != _FORMAT or told.get("database") != _kind(settings):
            raise FussyError(f"cannot restore from {file}: it has format {told.get('format')} and a database of kind "
                             f"{told.get('database')}; this server has format {_FORMAT} and {_kind(settings)}")
        _put_database(settings, place / "database", place)
        (place / "backup.json").unlink()
        (place / "database").unlink(missing_ok=True)
        for private in ("keys", "registry"):
            if (place / private).is_dir():
                (place / private).chmod(0o700)
        disk.sync_filesystem(place)
        if root.is_dir():
            root.rmdir()
        place.rename(root)
        disk.sync_directory(root.parent)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is neither a file nor a directory, as GnuPG's sockets are."""
    return member if member.isfile() or member.isdir() else None


def _kind(settings: Settings) -> str:
    return sa.make_url(settings.database_url).get_backend_name()


def _sqlite_file(settings: Settings) -> Path:
    return Path(str(sa.make_url(settings.database_url).database)).absolute()


def _copy_database(settings: Settings, target: Path) -> None:
    if _kind(settings) != "sqlite":
        _postgres(settings, "pg_dump", "--format=custom", "--no-owner", f"--file={target}")
        return
    source = _sqlite_file(settings)
    if not source.is_file():
        raise FussyError(f"cannot back up {source}: there is no such database; name the server's directory with --data")
    with closing(sqlite3.connect(source, timeout=30)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)


def _put_database(settings: Settings, source: Path, place: Path) -> None:
    if _kind(settings) != "sqlite":
        _postgres(settings, "pg_restore", "--exit-on-error", "--no-owner", str(source))
        return
    try:
        with closing(sqlite3.connect(source)) as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError:
        sound = False
    if not sound:
        raise FussyError("cannot restore: the database in the backup is damaged; take an older backup")
    target = _sqlite_file(settings)
    if target.exists():
        raise FussyError(f"cannot restore {target}: there is a database already; move it away")
    shutil.move(source, place / target.relative_to(settings.root) if target.is_relative_to(settings.root) else target)


def _postgres(settings: Settings, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on the database; the password does not show in the list of processes."""
    url = sa.make_url(settings.database_url)
    address = url.set(drivername="postgresql", password=None).render_as_string()
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    try:
        done = subprocess.run([program, f"--dbname={address}", *arguments], env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    except FileNotFoundError as error:
        raise SystemSetup(f"cannot run {program}: it is not here; install postgresql-client") from error
    if done.returncode:
        raise FussyError(f"cannot copy the database: {program} says: {done.stderr.strip()[-500:]}")
