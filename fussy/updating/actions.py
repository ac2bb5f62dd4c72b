"""What the updater remembers of a hawkBit server (``hawkbit.json``): the action it works on, what is still to be told.

What is to be told is written down before it is sent, and taken out when the server has taken it. So whatever is killed
and however long the server is away, it hears how each action ended, perhaps twice.
"""

import logging
from pathlib import Path

import msgspec

from fussy import disk
from fussy.updating.ddi import Feedback

log = logging.getLogger(__name__)

_MOST_UNSENT, _MOST_ENDED, _MOST_DIGESTS = 64, 16, 32


class Action(msgspec.Struct, frozen=True):
    """What the server wants done.

    ``digest``: that of the release's manifest, once it is about to get its place in the target; until then "". ``line``
    is what the server was told last of the way there.
    """

    id: str
    name: str
    digest: str = ""
    line: str = ""


class Kept(msgspec.Struct, frozen=True):
    """All that is remembered of the server called ``server``.

    ``away_since``: Unix time of the first of those attempts in a row that did not reach it; 0: the last one did.
    ``unsent``: the oldest first. ``ended``: how the last actions ended. ``digests``: of the manifests of bundles that
    were opened here, by SHA-256 of the bundle.
    """

    server: str = ""
    away_since: int = 0
    action: Action | None = None
    unsent: list[Feedback] = []
    ended: list[Feedback] = []
    digests: dict[str, str] = {}


def load(place: Path, server: str) -> Kept:
    """Return what is kept in the updater's directory PLACE of SERVER; of another server nothing counts."""
    try:
        found = msgspec.json.decode((place / "hawkbit.json").read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept(server)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("passing over %s: %s", place / "hawkbit.json", error)
        return Kept(server)
    return found if found.server == server else Kept(server)


def save(place: Path, kept: Kept) -> None:
    """Write it; durable when this returns."""
    disk.replace_file(place / "hawkbit.json", msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def begun(kept: Kept, number: str, name: str) -> Kept:
    """Return KEPT with the action NUMBER, to run what is called NAME, as the one that is worked on."""
    if kept.action and kept.action.id == number:
        return kept
    return msgspec.structs.replace(kept, action=Action(number, name))


def opened(kept: Kept, sha256: str, digest: str) -> Kept:
    """Return KEPT when the bundle SHA256 turned out to hold the release with this DIGEST."""
    others = {one: known for one, known in kept.digests.items() if one != sha256}
    return msgspec.structs.replace(kept, digests=dict([*others.items(), (sha256, digest)][-_MOST_DIGESTS:]))


def placing(kept: Kept, digest: str) -> Kept:
    """Return KEPT when the release with this DIGEST is about to get its place."""
    assert kept.action
    return msgspec.structs.replace(kept, action=msgspec.structs.replace(kept.action, digest=digest))


def again(kept: Kept) -> Kept:
    """Return KEPT with its action as one that has not begun to install."""
    assert kept.action
    return msgspec.structs.replace(kept, action=msgspec.structs.replace(kept.action, digest=""))


def told(kept: Kept, feedback: Feedback) -> Kept:
    """Return KEPT with FEEDBACK to be sent.

    Of the way to an end only the last is worth telling. The end of an action ends it here.
    """
    action = kept.action if kept.action and kept.action.id == feedback.action else None
    unsent = [one for one in kept.unsent
              if one.action != feedback.action or one.cancel != feedback.cancel or one.finished != "none"]
    if action and not feedback.cancel:
        action = None if feedback.finished != "none" else msgspec.structs.replace(action, line=feedback.line)
        kept = msgspec.structs.replace(kept, action=action)
    if feedback.finished != "none" and not feedback.cancel:
        kept = msgspec.structs.replace(kept, ended=[*kept.ended, feedback][-_MOST_ENDED:])
    return msgspec.structs.replace(kept, unsent=[*unsent, feedback][-_MOST_UNSENT:])


def sent(kept: Kept, feedback: Feedback) -> Kept:
    """Return KEPT without FEEDBACK, which the server has."""
    return msgspec.structs.replace(kept, unsent=[one for one in kept.unsent if one != feedback])


def end_of(kept: Kept, number: str) -> Feedback | None:
    """Return how the action NUMBER ended; None if it did not."""
    return next((one for one in reversed(kept.ended) if one.action == number), None)
