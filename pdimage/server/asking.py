"""Reads what clients send, of whatever generation, and makes of it what they ask for. Nothing else reads their JSON.

Old clients send ``target`` and ``subtarget``, ``packages`` with versions in the check, no version for the newest, and
``board`` and ``model`` as the device names them; newer ones ``target`` as ``ath79/generic``. The present-day API sends
a profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fussy import ondemand
from fussy.ondemand import Request
from pdimage.server import names, packages
from pdimage.server.catalogue import Board, Catalogue, Target
from pdimage.server.refusals import Refused, bad, unknown_packages
from pdimage.server.settings import Settings
from pdimage.server.visits import Device


@dataclass(frozen=True)
class Checked:
    """A device as it describes itself in an upgrade check. ``installed``: packages with versions."""

    distro: str
    version: str
    target: str
    installed: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""
    upgrade_packages: bool = False


@dataclass(frozen=True)
class Asked:
    """An image that somebody wants, with the text of its first-boot script."""

    request: Request
    defaults: str = ""


class Body:
    """A JSON object, of which each field is taken with the type it must have."""

    def __init__(self, content: bytes) -> None:
        try:
            data = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise bad(f"the body is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise bad("the body must be a JSON object")
        self.data: dict[str, Any] = data

    def text(self, key: str, default: str = "") -> str:
        """Return a field that is text."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise bad(f"{key} must be text")
        return value

    def name(self, key: str, kind: str) -> str:
        """Return a field that is a name of that kind, empty if it is not there."""
        text = self.text(key)
        return names.check(kind, text, bad) if text else ""

    def flag(self, key: str) -> bool:
        """Return a field that is true or false, or 1 or 0."""
        value = self.data.get(key, False)
        if value not in (True, False, None):
            raise bad(f"{key} must be true or false")
        return bool(value)

    def number(self, key: str, highest: int) -> int:
        """Return a field that is a whole number from 1 on, 0 if it is not there."""
        value = self.data.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
            raise bad(f"{key} must be a whole number from 1 to {highest}")
        return value

    def versions(self, key: str) -> dict[str, str]:
        """Return a field that maps packages to versions; a version may be missing."""
        value = self.data.get(key)
        if value is None:
            return {}
        if isinstance(value, list):
            value = dict.fromkeys(map(_text, value), "")
        if not isinstance(value, dict):
            raise bad(f"{key} must be an object of package names and versions")
        return {names.check("package", name, bad): _version(key, version) for name, version in value.items()}

    def packages(self, key: str, most: int) -> list[str]:
        """Return a field that lists packages, each perhaps with ``-`` in front; versions are passed over."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list | dict):
            raise bad(f"{key} must be a list of package names")
        if len(value) > most:
            raise bad(f"{key} lists {len(value)} packages; {most} are possible")
        listed = [_text(item) for item in value]
        for name in listed:
            names.check("package", name.removeprefix("-"), bad)
        return listed


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise bad("a package's name must be text")
    return item


def _version(key: str, version: object) -> str:
    if version is None or version == "":
        return ""
    if not isinstance(version, str | int) or isinstance(version, bool):
        raise bad(f"{key}: a version must be text")
    return names.check("package version", str(version), bad)


def check(catalogue: Catalogue, content: bytes) -> Checked:
    """Read an upgrade check."""
    body = Body(content)
    distro = _distro(catalogue, body)
    version = _known_version(catalogue, distro, body)
    target = _target(catalogue, distro, version, body)
    key = "installed" if "installed" in body.data else "packages"
    return Checked(distro, version, target, body.versions(key), body.text("revision"), body.flag("upgrade_packages"))


def build(catalogue: Catalogue, content: bytes, settings: Settings, *, with_defaults: bool) -> Asked:
    """Read an upgrade request, or a build request (WITH_DEFAULTS)."""
    body = Body(content)
    defaults = script(body.text("defaults"), settings) if with_defaults else ""
    distro = _distro(catalogue, body)
    version = _known_version(catalogue, distro, body)
    target = _target(catalogue, distro, version, body)
    wanted = [name.removeprefix("-") for name in body.packages("packages", settings.packages_limit)]
    known = catalogue.target(distro, version, target)
    profile = _profile(known, body)
    request = Request(distro, version, target, profile, tuple(wanted), ondemand.script_digest(defaults), _pinned(body),
                      diff_packages=True)
    return Asked(approved(request, known), defaults)


def modern(catalogue: Catalogue, content: bytes, settings: Settings) -> Asked:
    """Read a request of the present-day API."""
    body = Body(content)
    defaults = script(body.text("defaults"), settings)
    body.data.setdefault("distro", "openwrt")
    distro = _distro(catalogue, body)
    version = _known_version(catalogue, distro, body)
    target = _target(catalogue, distro, version, body)
    if body.data.get("repositories"):
        raise bad("repositories other than the server's own are not allowed here")
    wanted = body.packages("packages", settings.packages_limit) or list(body.versions("packages_versions"))
    known = catalogue.target(distro, version, target)
    request = Request(
        distro, version, target, _profile(known, body), tuple(wanted), ondemand.script_digest(defaults), _pinned(body),
        body.number("rootfs_size_mb", 1024), body.name("filesystem", "filesystem"), body.flag("diff_packages"),
        body.name("version_code", "version"))
    return Asked(approved(request, known), defaults)


def visitor(catalogue: Catalogue, content: bytes) -> Device:
    """Read what a router says of itself that is to be led from a page: an upgrade check with its board and name."""
    body, checked = Body(content), check(catalogue, content)
    known = catalogue.target(checked.distro, checked.version, checked.target)
    request = body.name("request", "hash")
    name = "".join(one for one in body.text("name") if one.isprintable())
    return Device(checked.distro, checked.version, checked.target, _profile(known, body), dict(checked.installed),
                  request, name[:64])


def _pinned(body: Body) -> dict[str, str]:
    return {name: version for name, version in body.versions("packages_versions").items() if version}


def approved(request: Request, known: Target | None) -> Request:
    """Return the request in normal form if what it names is there; an ImageBuilder that is not set up checks itself."""
    request = ondemand.normal(request)
    if known is None:
        return request
    wanted = [name.removeprefix("-") for name in request.packages]
    if missing := packages.unknown(known.packages, wanted):
        raise unknown_packages(missing)
    if request.version_code and known.revision and request.version_code != known.revision:
        raise bad(f"the server has revision {known.revision} of {request.version}, not {request.version_code}")
    for name, version in request.packages_versions.items():
        if name in known.packages and known.packages[name].version != version:
            raise bad(f"the server has version {known.packages[name].version} of {name}, not {version}")
    if found := packages.conflicts(known.packages, [name for name in request.packages if not name.startswith("-")]):
        raise Refused(409, f"Impossible package selection: {'; '.join(found)}")
    return request


def _distro(catalogue: Catalogue, body: Body) -> str:
    distro = body.text("distro").lower()
    if not distro:
        raise Refused(400, "distro is missing", {"X-Missing-Param": "distro"})
    if distro not in catalogue.distros:
        raise bad(f"unknown distribution {names.shown(distro)}")
    return distro


def _known_version(catalogue: Catalogue, distro: str, body: Body) -> str:
    """Return the version, the newest one if the client leaves it to the server."""
    version = body.text("version")
    if not version:
        return catalogue.distros[distro].newest
    if version not in catalogue.distros[distro].versions:
        raise bad(f"unknown version {names.shown(version)}")
    return version


def _target(catalogue: Catalogue, distro: str, version: str, body: Body) -> str:
    target, subtarget = body.text("target"), body.text("subtarget")
    if not target:
        raise Refused(400, "target is missing", {"X-Missing-Param": "target"})
    whole = f"{target}/{subtarget}" if subtarget and "/" not in target else target
    if whole not in catalogue.targets(distro, version):
        raise bad(f"unknown target {names.shown(whole)}")
    return whole


def _profile(known: Target | None, body: Body) -> str:
    """Return the profile that a device means by profile, board or model, in this order."""
    given = (body.text("profile") or body.text("board")).replace(",", "_")
    model = body.text("model")
    if given:
        names.check("profile", given, bad)
    if known is None:
        if not given:
            raise Refused(400, "board is missing", {"X-Missing-Param": "board"})
        return given
    if found := board(known.boards, given, model):
        return found.profile
    raise bad("unknown device, please check model and board params")


def board(boards: Mapping[str, Board], given: str, model: str = "") -> Board | None:
    """Return the board that is called GIVEN, or is this MODEL, or the one that fits all of its target."""
    if given in boards:
        return boards[given]
    for one in boards.values():
        if (given and given in one.names) or (model and model.casefold() == one.model.casefold()):
            return one
    return boards.get("generic") or boards.get("Generic")


def script(defaults: str, settings: Settings) -> str:
    """Return a first-boot script if it may be one.

    :raises Refused: it is too long (420), is not text, or the server takes none
    """
    if len(defaults.encode(errors="replace")) > settings.defaults_limit:
        raise Refused(420, f"attached defaults exceed max size of {settings.defaults_limit} bytes")
    if defaults and not settings.allow_defaults:
        raise bad("this server builds no images with defaults")
    if "\0" in defaults or any(0xD800 <= ord(character) < 0xE000 for character in defaults):
        raise bad("defaults must be text")
    return defaults
