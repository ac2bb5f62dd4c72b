"""The chutes of the release in use, and what is to be done so that they exist.

They lie beside the layout with their images (the setting CHUTE_IMAGE_DIR), ``chutes/NAME/chute.json`` each:
``descriptor`` is what the update queue takes, ``files`` a digest of the directory ``files/`` beside it, if the
container is built here.

What was done is remembered in ``CONFIG_HOME_DIR/release-chutes``, by name: the digest of a chute.json, or "" while it
is being done. A chute that its user has changed or deleted since stays so until a release brings another version of it;
one that the user installed under a name that no release had is never touched.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from paradrop.lib import conflicts, settings
from paradrop.lib.chutespec import Specification
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

Kind = Literal["delete", "update", "create"]


@dataclass(frozen=True)
class ReleaseChute:
    """A chute of the release. digest: of all that it is. workdir: what it is built from, None if it is not built."""

    name: str
    digest: str
    descriptor: Mapping[str, Any]
    workdir: Path | None = None


@dataclass(frozen=True)
class Step:
    """Something to be done. digest: what is remembered once it is."""

    kind: Kind
    name: str
    digest: str = ""


def directory() -> Path:
    """Return where the chutes of the release in use lie."""
    return Path(settings.CHUTE_IMAGE_DIR).with_name("chutes")


def release() -> Path:
    """Return the directory of the release in use."""
    return directory().resolve().parents[1]


def of_release() -> dict[str, ReleaseChute]:
    """Return the chutes of the release in use, by name.

    Raises:
        ParadropError: one cannot be read.
    """
    return {chute.name: chute for chute in map(_read, sorted(directory().glob("*/chute.json")))}


def _read(path: Path) -> ReleaseChute:
    try:
        content = path.read_bytes()
        descriptor = msgspec.json.decode(content)["descriptor"]
        name = str(descriptor["name"])
    except (OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ParadropError(f"cannot read {path}: {error}; install the release again") from error
    files = path.parent / "files"
    return ReleaseChute(name, hashlib.sha256(content).hexdigest(), descriptor, files if files.is_dir() else None)


def decide(release: Mapping[str, str], done: Mapping[str, str], there: Collection[str]) -> list[Step]:
    """Return what is to be done, in this order: what leaves makes room for what comes.

    Args:
        release: the digests of the release's chutes.
        done: the digests that were brought about before.
        there: the names of the chutes on the router.

    >>> decide({"web": "2", "dns": "1"}, {"web": "1", "old": "1"}, ["web", "old", "mine"])
    [Step(kind='delete', name='old', digest=''), Step(kind='update', name='web', digest='2'), \
Step(kind='create', name='dns', digest='1')]
    >>> decide({"web": "1"}, {"web": "1"}, [])  # its user deleted it
    []
    >>> decide({"web": "1"}, {}, ["web"])  # its user had it before a release did
    []
    """
    leaving = [Step("delete", name) for name in done if name not in release and name in there]
    changed = {name: digest for name, digest in release.items() if done.get(name) != digest}
    return [*leaving, *(Step("update", name, changed[name]) for name in changed if name in there and name in done),
            *(Step("create", name, changed[name]) for name in changed if name not in there)]


def ordered(steps: Iterable[Step], wanted: Mapping[str, Specification], now: Mapping[str, Specification]) -> list[Step]:
    """Return updates in an order in which none asks for what another one still has, such as a port that moves.

    Chutes that exchange something have no such order; they come last, as they are.
    """
    left, found = list(steps), []
    while left:
        step = next((step for step in left if step.name not in wanted or not any(
            conflicts.find(wanted[step.name], [now[other.name] for other in left if other.name in now]))), left[0])
        left.remove(step)
        found.append(step)
    return found


def _memory() -> Path:
    return Path(settings.CONFIG_HOME_DIR, "release-chutes")


def done() -> dict[str, str]:
    """Return what was brought about before, by name.

    Raises:
        ParadropError: the file is damaged.
    """
    try:
        return msgspec.json.decode(_memory().read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise ParadropError(f"cannot read {_memory()}: {error}; delete it, and chutes of the release that are here "
                            "count as their user's") from error


def remember(name: str, digest: str | None) -> None:
    """Note what was brought about; None forgets the chute."""
    entries = {other: digest for other, digest in done().items() if other != name}
    if digest is not None:
        entries[name] = digest
    pdosq.makedirs(_memory().parent)
    pdosq.replaceFile(_memory(), msgspec.json.encode(entries))
