"""What a device asks a build server for, and how it sees that it got exactly that.

The device writes down its request, takes the digest, and asks the server. The server puts the digest into the manifest
of the bundle, as the metadata field ``request``, before it signs. A bundle for another request, however well it is
signed, is refused by :func:`check`: neither a server nor a mirror, nor who sits between, can give a device an image
that it did not ask for.

The digest is the SHA-256 of the request as JSON (RFC 8259) with the fields in the order of their names, without spaces
and without fields that have their default, in UTF-8. All of it counts, and all 64 digits are compared.
"""

import hashlib
import re
from collections.abc import Mapping

import msgspec

from fussy.errors import Incompatible

# Fields of the manifest's metadata: the digest; what was asked for, ``NAME=VERSION`` with spaces between.
FIELD = "request"
PACKAGES = "packages"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image that is asked for.

    ``target`` and ``profile`` name the board (``x86/64`` and ``generic``). ``packages`` are all that the image is to
    have, sorted, each once. ``defaults`` is the SHA-256 in hex of the first-boot script, empty without one.
    ``diff_packages``: nothing but ``packages`` and what they need; otherwise they are added to the board's own, and one
    with ``-`` in front is left out. ``packages_versions`` are versions that must be met, ``version_code`` the revision.
    ``rootfs_size_mb`` (MiB) and ``filesystem`` are for images of OpenWrt.
    """

    distro: str
    version: str
    target: str
    profile: str
    packages: tuple[str, ...] = ()
    defaults: str = ""
    packages_versions: dict[str, str] = {}
    rootfs_size_mb: int = 0
    filesystem: str = ""
    diff_packages: bool = False
    version_code: str = ""


def normal(request: Request) -> Request:
    """Return a request in the one form that has its digest: packages sorted, each once."""
    return msgspec.structs.replace(request, packages=tuple(sorted(set(request.packages))))


def digest(request: Request) -> str:
    """Return the SHA-256 of a request, in hex.

    >>> digest(Request("paradrop", "1.1", "x86/64", "generic", ("hello-world", "runtime")))[:16]
    'bbfe8a9f8246c419'
    """
    return hashlib.sha256(msgspec.json.encode(normal(request), order="sorted")).hexdigest()


def script_digest(script: str) -> str:
    """Return the field ``defaults`` for a first-boot script."""
    return hashlib.sha256(script.encode()).hexdigest() if script else ""


def check(metadata: Mapping[str, object], request: Request) -> None:
    """Refuse a bundle, by its manifest's METADATA, that was not made for REQUEST.

    :raises Incompatible: it was made for another request, or for none
    """
    said = metadata.get(FIELD)
    if not isinstance(said, str) or not _DIGEST.fullmatch(said):
        raise Incompatible("cannot take this bundle: it does not say for which request it was made; ask the build "
                           "server again")
    if said != digest(request):
        raise Incompatible(f"cannot take this bundle: it was made for the request {said[:12]}, but this device asked "
                           f"for {digest(request)[:12]}; ask the build server again")
