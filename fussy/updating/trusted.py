"""What a channel offers, once The Update Framework has verified it (python-tuf's client, with what it leaves to us).

Trust begins with the root that the firmware ships, at each run anew: what is in the cache counts only by signatures
that lead there. python-tuf checks signatures and thresholds, the chain of roots, versions against those in its cache,
expiry, lengths and hashes. Added here:

- durability: the cache is synced after each refresh, and one that can't be used is thrown away;
- ``trusted.json`` with the versions seen (:class:`Floor`): a cache that was lost does not let a source go back. Like
  TUF itself it forgets them when the keys of the role that vouches for them were changed, which is how a publisher
  recovers after a thief has signed the highest version there is (a fast-forward attack);
- expiry is judged by :mod:`fussy.updating.clock`, and all that is valid together has one end, ``valid_until``;
- what goes wrong has the name of the attack that it would be.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from fussy import channel, disk, moments
from fussy.errors import BadBundle, NoSpace, SystemSetup, UntrustedChannel, full, is_full, words
from fussy.updating import sources
from fussy.updating.choose import Found
from fussy.updating.clock import Clock

log = logging.getLogger(__name__)

TIMESTAMP = "metadata/timestamp.json"
MOST_TIMESTAMP = 16384


class Floor(msgspec.Struct, frozen=True):
    """The versions of metadata below which nothing is believed, by role; ``keys`` names the keys that vouched for them.

    ``time`` is the clock of the last check that found everything valid, ``valid_until`` when the first part of that
    expires (Unix times).
    """

    time: int = 0
    valid_until: int = 0
    versions: dict[str, int] = {}
    keys: dict[str, str] = {}


def load_floor(place: Path) -> Floor:
    """Return the floor kept in the updater's directory PLACE; an empty one if there is none that can be read."""
    try:
        return msgspec.json.decode((place / "trusted.json").read_bytes(), type=Floor)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("passing over %s: %s", place / "trusted.json", error)
    return Floor()


def cached_timestamp(place: Path) -> bytes:
    """Return the newest timestamp.json that was verified, b"" if there is none."""
    try:
        return (place / "metadata/timestamp.json").read_bytes()
    except OSError:
        return b""


def claimed(timestamp: bytes) -> int:
    """Return the version that a timestamp.json claims to have, before anything is verified; -1 for what is none.

    >>> claimed(b'{"signed": {"version": 7}}'), claimed(b"<html>")
    (7, -1)
    """
    try:
        version = json.loads(timestamp)["signed"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1
    return version if isinstance(version, int) else -1


def root_expires(root: bytes) -> float:
    """Return when the shipped root expires, as a Unix time.

    :raises SystemSetup: it is no root
    """
    try:
        return datetime.fromisoformat(json.loads(root)["signed"]["expires"].replace("Z", "+00:00")).timestamp()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemSetup("cannot trust any channel: root.json in the keyring is no root of The Update Framework; "
                          "copy the channel's metadata/1.root.json there") from error


def refresh(place: Path, root: bytes, source: sources.Source, clock: Clock, product: str) -> list[Found]:
    """Verify the newest metadata of SOURCE and return the files of PRODUCT.

    :param place: the updater's directory; its lock is held
    :param root: the root that the firmware ships
    :raises UntrustedChannel: the source can't be believed; named after the attack
    :raises Unreachable: it can't be read, or lacks files
    :raises TooSlow: it is too slow
    :raises SystemSetup: ROOT is no root, or the channel has no such product
    """
    cache = place / "metadata"
    try:
        return _refresh(place, root, source, clock, product)
    except (OSError, RecursionError) as error:
        if is_full(error):
            raise NoSpace(f"cannot look for updates: {full(place, error)}; run fussy-clean --no-spare or make room"
                          ) from error
        if not cache.is_dir():
            raise
        log.warning("the cache of metadata can't be used (%s): starting from the shipped root", words(error))
        shutil.rmtree(cache)
        return _refresh(place, root, source, clock, product)


def _refresh(place: Path, root: bytes, source: sources.Source, clock: Clock, product: str) -> list[Found]:
    from tuf.api.exceptions import DownloadError, RepositoryError
    from tuf.ngclient.updater import Updater

    from fussy.updating.tuffetcher import Fetcher

    cache = place / "metadata"
    cache.mkdir(mode=0o700, exist_ok=True)
    for leftover in cache.glob("tmp*"):
        leftover.unlink()
    fetcher = Fetcher(source)
    try:
        updater = Updater(str(cache), "metadata/", fetcher=fetcher, bootstrap=root)
    except RepositoryError as error:
        raise SystemSetup(f"cannot trust any channel: root.json in the keyring: {error}") from error
    try:
        updater.refresh()
        # no file has this name; looking for it loads every role that may speak about the product
        updater.get_targetinfo(f"{product}/-")
    except RepositoryError as error:
        raise UntrustedChannel(_attack(error, fetcher.last, clock)) from error
    except DownloadError as error:
        raise sources.Missing(str(error)) from error
    described = _described(cache, product)
    _check_expiry(described, clock)
    floor = load_floor(place)
    risen = _risen(floor, described, clock)
    disk.sync_filesystem(cache)
    if risen != floor:
        disk.replace_file(place / "trusted.json", msgspec.json.format(msgspec.json.encode(risen)) + b"\n")
    found = _files(described, product)
    if not found and len(described) <= 4:
        raise SystemSetup(f"cannot find the product {product!r} in the channel: set `product` to one that it has")
    return found


def _described(cache: Path, product: str) -> dict[str, Any]:
    """Return the metadata that python-tuf has just verified and stored, by role: what speaks about PRODUCT, in the
    order in which it is to be believed."""
    from tuf.api.metadata import Metadata

    def of(role: str) -> Any:
        return Metadata.from_bytes((cache / f"{quote(role, '')}.json").read_bytes()).signed

    described = {role: of(role) for role in ("root", "timestamp", "snapshot")}
    waiting = ["targets"]
    while waiting:
        role = waiting.pop()
        if role in described:
            continue
        described[role] = of(role)
        if described[role].delegations is not None:
            children = []
            for child, terminating in described[role].delegations.get_roles_for_target(f"{product}/-"):
                children.append(child)
                if terminating:
                    waiting = []
                    break
            waiting += reversed(children)
    return described


def _files(described: dict[str, Any], product: str) -> list[Found]:
    found: dict[str, Found] = {}
    for role, signed in described.items():
        if role in ("root", "timestamp", "snapshot"):
            continue
        for path, file in signed.targets.items():
            if not path.startswith(f"{product}/") or path in found or "sha256" not in file.hashes:
                continue
            try:
                offer = channel.decode(file.custom or {})
            except BadBundle as error:
                log.info("%s: %s", path, error)
                continue
            found[path] = Found(path, file.length, file.hashes["sha256"], offer)
    return list(found.values())


def _check_expiry(described: dict[str, Any], clock: Clock) -> None:
    """Check what python-tuf could not: it goes by the machine's clock, which may be behind."""
    for role, signed in described.items():
        if signed.is_expired(clock.reference):
            raise UntrustedChannel(_expired(f"{role}.json", clock))


def _expired(what: str, clock: Clock) -> str:
    shown = f"; {clock.note()}" if clock.behind else f"; the clock shows {moments.utc(clock.now, 'day')}"
    return (f"{what} has expired{shown}. If that is wrong, set the clock; if not, the publisher does not refresh the "
            "channel, or the source holds newer metadata back (freeze attack)")


def _risen(floor: Floor, described: dict[str, Any], clock: Clock) -> Floor:
    """Return the floor after a good refresh.

    A role's version is compared while the keys that vouch for it are the same: those of timestamp for timestamp and
    snapshot, those of snapshot for all targets; a root vouches for the next one by its signature, so it never goes
    back.

    :raises UntrustedChannel: a version is lower than one that was seen (a rollback attack on a device without cache)
    """
    root = described["root"]
    keys = {role: _fingerprint(root, role) for role in ("timestamp", "snapshot")}
    versions = {role: signed.version for role, signed in described.items()}
    kept = {}
    for role, seen in floor.versions.items():
        vouching = "timestamp" if role in ("timestamp", "snapshot") else "snapshot"
        if role != "root" and floor.keys.get(vouching) != keys[vouching]:
            continue
        if versions.get(role, seen) < seen:
            raise UntrustedChannel(f"{role}.json has version {versions[role]}, this device has seen {seen} "
                                   "(rollback attack)")
        kept[role] = seen
    valid_until = min(int(signed.expires.replace(tzinfo=UTC).timestamp()) for signed in described.values())
    return Floor(int(clock.time), valid_until, {**kept, **versions}, keys)


def _fingerprint(root: Any, role: str) -> str:
    """Name the keys of a top-level role."""
    return hashlib.sha256(" ".join(sorted(root.roles[role].keyids)).encode()).hexdigest()


def _attack(error: Exception, last: str, clock: Clock) -> str:
    """Say what is wrong with the metadata that was fetched last, and which attack that would be.

    The names are those of the TUF specification, section "Goals to protect against specific attacks".
    """
    from tuf.api import exceptions as tuf
    from tuf.api.serialization import DeserializationError

    role = last.removeprefix("metadata/").removesuffix(".json").lstrip("0123456789.")
    if isinstance(error, tuf.ExpiredMetadataError):
        return _expired(str(error).removeprefix("Final ").removeprefix("New ").partition(" ")[0], clock)
    if isinstance(error, DeserializationError):
        return f"{last} is no metadata"
    if isinstance(error, tuf.UnsignedMetadataError):
        return f"{last} is not signed by enough of the keys that may sign it (arbitrary software attack): {error}"
    if isinstance(error, tuf.BadVersionNumberError) and role == "root":
        return f"{last} does not follow the root before it (wrong chain of roots): {error}"
    if isinstance(error, tuf.BadVersionNumberError) and role == "timestamp":
        return f"{last} is older than what this device has seen (rollback attack): {error}"
    if isinstance(error, tuf.BadVersionNumberError) and role == "snapshot" and "Expected snapshot" not in str(error):
        return f"{last} lists older metadata than this device has seen (rollback attack): {error}"
    if role == "root":
        return f"{last} is no root: {error}"
    return f"{last} is not what the metadata before it names (mix-and-match attack): {error}"


@contextlib.contextmanager
def named(source: sources.Source) -> Any:
    """Put the name of the source in front of what it is accused of."""
    try:
        yield
    except UntrustedChannel as error:
        raise UntrustedChannel(f"{source.name}: {error}") from error
