"""What a channel says of each of its files: the words that the publisher and the devices share.

A channel is a directory of The Update Framework (TUF, https://theupdateframework.io), consistent snapshots on::

    metadata/timestamp.json             the only file that changes; all others are written once
    metadata/N.root.json                every root since the first
    metadata/N.snapshot.json
    metadata/N.targets.json             delegates each product line to a role of the same name
    metadata/N.PRODUCT.json             the files of a product line
    targets/PRODUCT/SHA256.FILE         target path: PRODUCT/FILE

Each target has an :class:`Offer` as its ``custom`` field. A **part** is an OpenPGP bundle for self-repair: a compressed
tar with the regular files among the entries ``first`` to ``last`` (both included, counted from 0) of the manifest that
has the offer's digest, as members ``RELEASE/path``, in the manifest's order; with both -1 it has that manifest.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fussy.errors import BadBundle

_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ``custom`` field of a target. Unknown fields are passed over, so that later publishers can say more.

    ``release`` and ``version`` are the manifest's, ``digest`` its SHA-256 (``fussy.manifest.digest``): what a device
    has once it has installed this. ``base`` (deltas): the digest of the release that must be there;
    ``memory``: MiB that applying it takes.

    ``compatible``, ``installer``, ``upgrade_from`` and ``floor`` say what the manifest says, before it is downloaded;
    the publisher may raise the floor. ``size_installed``: bytes of all files. ``percent`` and ``seed``: gradual
    roll-out, see :func:`takes_part`. ``window``: when the publisher wants it installed; the owner's own goes before
    it. ``security``: it mends a security fault. ``notes``: for people. ``first`` and ``last``: entries that a part has.
    """

    kind: Literal["full", "delta", "part"]
    release: str
    version: str = ""
    compatible: list[str] = []
    digest: _Digest
    base: _Digest | Literal[""] = ""
    memory: int = 0
    installer: str = ""
    upgrade_from: str = ""
    floor: str = ""
    size_installed: int = 0
    percent: _Percent = 100.0
    seed: str = ""
    window: str = ""
    security: bool = False
    notes: str = ""
    first: int = -1
    last: int = -1


def encode(offer: Offer) -> dict[str, Any]:
    """Return the offer as the ``custom`` field of a target.

    Signed JSON knows no fractions (canonical JSON), so ``percent`` is text.
    """
    fields: dict[str, Any] = msgspec.to_builtins(offer)
    if "percent" in fields:
        fields["percent"] = f"{offer.percent:.10g}"
    return fields


def decode(custom: Mapping[str, Any]) -> Offer:
    """Read the ``custom`` field of a target.

    :raises BadBundle: it is no offer, or of a kind that this version does not know: pass this target over
    """
    try:
        return msgspec.convert(dict(custom), Offer, strict=False)
    except msgspec.ValidationError as error:
        raise BadBundle(f"cannot read an offer of the channel: {error}; a newer fussy may know it") from error


def takes_part(offer: Offer, device: str) -> bool:
    """Whether the roll-out has reached the device of this id. Who is in stays in when ``percent`` is raised.

    >>> offer = Offer(kind="full", release="firmware-7", digest="0" * 64, percent=25, seed="a")
    >>> [takes_part(offer, f"router-{number}") for number in range(8)].count(True)
    2
    """
    return stable_hash(offer.seed, device) < offer.percent


def stable_hash(seed: str, device: str) -> float:
    """Return a number from 0 up to, but not including, 100: the same for the same texts, evenly spread otherwise."""
    digest = hashlib.sha256(f"{seed}\0{device}".encode()).digest()
    # 53 bits: a float holds them exactly, so nothing is rounded up to 100
    return (int.from_bytes(digest[:8]) >> 11) / 2**53 * 100
