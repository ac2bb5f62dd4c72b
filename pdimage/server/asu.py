"""The documented API: upgrade check, upgrade request, build request (Attended SysUpgrade server, "API").

Where the documents leave open what clients of several generations need differently:

- ``sysupgrade`` is a link in answers to clients that send ``subtarget``, and to polls of ``upgrade-request`` by others
  than auc 0.1 and later; it is a name to all others. The setting ``sysupgrade`` decides for all.
- 204 cannot have a body in HTTP; its ``request_hash`` is in the header X-Request-Hash.
- What is unknown is 400, an impossible selection 409, an unknown hash 404, more than a client's share 429.
"""

import hashlib
import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server import answers, asking, names, packages
from pdimage.server.answers import Said
from pdimage.server.asking import Checked
from pdimage.server.catalogue import Catalogue, Distro
from pdimage.server.desk import Desk
from pdimage.server.entries import Entry
from pdimage.server.http import answer, body, client_of
from pdimage.server.refusals import Refused, unknown_packages
from pdimage.server.visits import Device

_NAMES_ONLY = re.compile(r"auc/0\.[1-9]|auc/[1-9]", re.IGNORECASE)


class Asu:
    """The handlers of the documented API."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def upgrade_check(self, request: Request) -> Response:
        """Say whether there is a newer version, or newer packages, for a device."""
        content = await body(request, self.desk.settings)
        catalogue = await self.desk.catalogue()
        checked = asking.check(catalogue, content)
        said = check(catalogue, checked)
        return answer(said.body if said.status == 200 else None, said.status, said.headers)

    async def upgrade_request(self, request: Request) -> Response:
        """Ask for an image that a device installs."""
        return await self._ask(request, upgrade=True)

    async def build_request(self, request: Request) -> Response:
        """Ask for an image, perhaps with a first-boot script."""
        return await self._ask(request, upgrade=False)

    async def upgrade_poll(self, request: Request) -> Response:
        """Ask how far an upgrade request is."""
        return await self._poll(request, upgrade=True)

    async def build_poll(self, request: Request) -> Response:
        """Ask how far a build request is."""
        return await self._poll(request, upgrade=False)

    async def _ask(self, request: Request, *, upgrade: bool) -> Response:
        content = await body(request, self.desk.settings)
        asked = asking.build(await self.desk.catalogue(), content, self.desk.settings, with_defaults=not upgrade)
        entry = await self.desk.accept(asked, client_of(request))
        return self._said(request, entry, upgrade, b'"subtarget"' in content)

    async def _poll(self, request: Request, *, upgrade: bool) -> Response:
        digest = request.path_params["request_hash"]
        entry = await self.desk.find(digest) if names.is_good("hash", digest) else None
        if entry is None:
            raise Refused(404, "this request is not known (any more); ask again")
        linked = upgrade and not _NAMES_ONLY.match(request.headers.get("user-agent", ""))
        return self._said(request, entry, upgrade, linked)

    def _said(self, request: Request, entry: Entry, upgrade: bool, linked: bool) -> Response:
        wish = self.desk.settings.sysupgrade
        said = answers.documented(entry, upgrade=upgrade, prefix=address(request, self.desk.settings.url),
                                  linked=linked if wish == "auto" else wish == "link")
        return answer(said.body, said.status, said.headers)


def address(request: Request, url: str) -> str:
    """Return the address of the server for links: the setting ``url``, or as the client called it."""
    return url.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"


def check(catalogue: Catalogue, device: Checked) -> Said:
    """Answer an upgrade check: 200 with what is new, or 204.

    :raises Refused: the device has packages that its version does not know (422)
    """
    distro = catalogue.distros[device.distro]
    newest = newest_for(distro, device.version)
    before = catalogue.target(device.distro, device.version, device.target)
    after = catalogue.target(device.distro, newest, device.target)
    installed = {name: version for name, version in device.installed.items() if name not in packages.PLATFORM}
    if before and (missing := packages.unknown(before.packages, installed)):
        raise unknown_packages(missing)
    changed = packages.transform(distro, device.version, newest, installed)
    now = {changed.renamed.get(name, name): version for name, version in installed.items() if version}
    newer = packages.upgrades(after.packages, now, older=newest != device.version) if after else {}
    revised = bool(device.revision and after and after.revision not in ("", device.revision))
    headers = {"X-Request-Hash": hashlib.sha256(msgspec.json.encode(device, order="sorted")).hexdigest()}
    if newest == device.version and not newer and not (revised and distro.versions[newest].snapshot):
        return Said(204, {}, headers)
    return Said(200, {
        "version": newest, "upgrades": newer, "packages": list(changed.packages),
        "changes": {"renamed": dict(changed.renamed), "dropped": dict(changed.dropped)}}, headers)


def news(catalogue: Catalogue, device: Device) -> Said:
    """Answer as to an upgrade check of a router that visits.

    :raises Refused: as :func:`check`
    """
    return check(catalogue, Checked(device.distro, device.version, device.target, device.installed))


def newest_for(distro: Distro, version: str) -> str:
    """Return the version that a device should have: never an older one, and a snapshot stays a snapshot."""
    order = list(distro.versions)
    if distro.versions[version].snapshot or order.index(version) > order.index(distro.newest):
        return version
    return distro.newest
