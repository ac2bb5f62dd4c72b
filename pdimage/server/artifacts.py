"""The store of finished files: a directory, or whatever obstore reaches (S3 and the like). Names are ``HASH/FILE``.

Files are written before the database says that the image is there, and deleted after it says that it is gone; what
a killed worker leaves is deleted by the collector.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from fussy.errors import SystemSetup
from pdimage.server.settings import Settings

BLOCK = 256 << 10


class Artifacts:
    """The files of images."""

    def __init__(self, store: Any, directory: Path | None) -> None:
        self._store = store
        self.directory = directory

    def put(self, digest: str, file: Path) -> None:
        """Keep FILE under its name for the request DIGEST; one of that name is replaced."""
        with file.open("rb") as stream:
            obstore.put(self._store, f"{digest}/{file.name}", stream)

    def path(self, digest: str, name: str) -> Path | None:
        """Return where a file lies, None if the store is not a directory of this machine."""
        return self.directory / digest / name if self.directory else None

    def link(self, digest: str, name: str, seconds: int = 3600) -> str:
        """Return an address of the store itself from which a client may load a file for some time."""
        from datetime import timedelta

        return str(obstore.sign(self._store, "GET", f"{digest}/{name}", timedelta(seconds=seconds)))

    def read(self, digest: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from START to before END.

        :raises FileNotFoundError: it is not there (any more)
        """
        while start < end:
            block = bytes(obstore.get_range(self._store, f"{digest}/{name}", start=start, end=min(end, start + BLOCK)))
            if not block:
                raise FileNotFoundError(f"{digest}/{name}")
            yield block
            start += len(block)

    def names(self) -> Iterator[tuple[str, float]]:
        """Yield name and time (Unix seconds) of every file."""
        for part in obstore.list(self._store):
            for item in part:
                yield item["path"], item["last_modified"].timestamp()

    def delete(self, names: list[str]) -> None:
        """Delete files; those that are not there are fine."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                continue

    def check(self) -> None:
        """Find out whether the store answers.

        :raises SystemSetup: it does not
        """
        try:
            for _ in obstore.list(self._store, "0", chunk_size=1):
                break
        except (OSError, BaseError) as error:
            raise SystemSetup(f"cannot reach the store of images: {error}; see the settings store and store_options") \
                from error


def connect(settings: Settings) -> Artifacts:
    """Return the store that the settings name: ``s3://bucket/prefix`` or a directory.

    :raises SystemSetup: they name none
    """
    where = settings.store
    if "://" not in where:
        directory = settings.root / (where or "store")
        directory.mkdir(parents=True, exist_ok=True)
        return Artifacts(LocalStore(directory), directory)
    options: Any = settings.store_options
    http: Any = {"allow_http": settings.store_options.get("endpoint", "").startswith("http://")}
    try:
        return Artifacts(from_url(where, config=options, client_options=http), None)
    except (BaseError, ValueError, KeyError) as error:
        raise SystemSetup(f"cannot use the store {where}: {error}; see the settings store and store_options") from error
