"""Deletes images that are too old (README.rst: settings ``keep_...``), and files that no image has.

The database forgets first, then the files go: whoever has just been told of an image may miss its file, but no file
stays for good that nobody knows.
"""

import logging
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.artifacts import Artifacts
from pdimage.server.settings import Settings
from pdimage.server.tables import images, logs, manifests, requests

log = logging.getLogger(__name__)

DAY = 86400.0
# Files of a build that is about to be recorded are younger than this.
_YOUNG = DAY / 2


def collect(engine: sa.Engine, settings: Settings, store: Artifacts, clock: Callable[[], float] = time.time) -> int:
    """Delete what is too old; return how many requests were forgotten."""
    now = clock()
    old = (images.c.built < now - settings.keep_image_days * DAY) \
        | (images.c.snapshot == 1) & (images.c.built < now - settings.keep_snapshot_days * DAY) \
        | (images.c.defaults_hash != "") & (images.c.built < now - settings.keep_defaults_days * DAY)
    with engine.begin() as connection:
        doomed = set(connection.scalars(select(images.c.request_hash).where(old)))
        doomed |= set(connection.scalars(select(requests.c.hash).where(
            requests.c.state == "failed", requests.c.finished < now - max(DAY, settings.failure_seconds))))
        for digest in sorted(doomed):
            connection.execute(sa.delete(images).where(images.c.request_hash == digest))
            connection.execute(sa.delete(logs).where(logs.c.hash == digest))
            connection.execute(sa.delete(requests).where(
                requests.c.hash == digest, requests.c.state.in_(["done", "failed"])))
        connection.execute(sa.delete(manifests).where(
            manifests.c.hash.not_in(select(images.c.manifest_hash))))
        stored = set(connection.scalars(select(images.c.request_hash)))
    stale = [name for name, when in store.names()
             if (digest := name.partition("/")[0]) not in stored and when < (now if digest in doomed else now - _YOUNG)]
    store.delete(stale)
    if doomed or stale:
        log.info("collected %d requests and %d files", len(doomed), len(stale))
    return len(doomed)
