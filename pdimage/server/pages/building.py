"""Ask for an image; watch the queue, and one build with its log; download what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fussy import ondemand
from pdimage import diff
from pdimage.server import names
from pdimage.server.asking import Asked, approved, script
from pdimage.server.desk import Desk
from pdimage.server.entries import Entry, Image
from pdimage.server.http import client_of, in_thread
from pdimage.server.pages.choosing import chosen, read
from pdimage.server.pages.showing import first, form, query, show
from pdimage.server.refusals import Refused, bad

# What is shown of a log: its end.
LOG_SHOWN = 16 << 10
_LATELY = 20
_STEPS = ("queued", "initialize", "building", "signing", "done")
_TOLD = {"queued": "Waiting", "initialize": "Preparing", "building": "Building", "signing": "Signing", "done": "Done"}


@dataclass(frozen=True)
class Step:
    """A step of a build, for people. ``state``: past, now, or to come."""

    name: str
    state: str


class Building:
    """The pages about builds."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def queue(self, request: Request) -> Response:
        """Show what waits, and what was built or failed lately."""
        waiting = [entry for digest in await in_thread(self.desk.requests.queue)
                   if (entry := await self.desk.find(digest))]
        lately = await in_thread(self.desk.images.latest, _LATELY)
        failed = await in_thread(self.desk.images.failures, _LATELY)
        return show("queue.html", waiting=waiting, lately=lately, failed=failed)

    async def ask(self, request: Request) -> Response:
        """Put what was chosen into the queue, and lead to its page."""
        fields = await form(request, self.desk.settings)
        catalogue = await self.desk.catalogue()
        choice = read(catalogue, fields)
        known = catalogue.target(choice.distro, choice.version, choice.target)
        if known is None:
            raise bad("choose a board first")
        defaults = script(first(fields, "defaults").replace("\r\n", "\n"), self.desk.settings)
        wish = approved(ondemand.Request(
            choice.distro, choice.version, choice.target, choice.profile, chosen(fields, known),
            ondemand.script_digest(defaults), diff_packages=True), known)
        entry = await self.desk.accept(Asked(wish, defaults), client_of(request))
        return RedirectResponse(f"/builds/{entry.hash}", 303)

    async def one(self, request: Request) -> Response:
        """Show how far a build is, or what came of it."""
        digest = request.path_params["request_hash"]
        entry = await self.desk.find(digest) if names.is_good("hash", digest) else None
        if entry is None:
            raise Refused(404, "this build is not known (any more); ask for the image again")
        log = await in_thread(self.desk.requests.log, digest) or ""
        manifest = await in_thread(self.desk.images.manifest, entry.image.manifest_hash) if entry.image else None
        facts: dict[str, Any] = {
            "entry": entry, "steps": steps(entry), "log": log[-LOG_SHOWN:], "log_cut": len(log) > LOG_SHOWN,
            "manifest": manifest or {}, "under_way": entry.state in ("queued", "building")}
        return show("progress.html" if first(query(request), "part") == "progress" else "build.html", **facts)


def steps(entry: Entry) -> Sequence[Step]:
    """Return the steps of a build with what became of each."""
    now = {"queued": "queued", "done": "done"}.get(entry.state, entry.stage)
    if entry.state == "failed":
        return ()
    place = _STEPS.index(now) if now in _STEPS else 1
    return [Step(_TOLD[name], "past" if number < place or entry.state == "done" else "now" if number == place
                 else "to come") for number, name in enumerate(_STEPS)]


def changes(desk: Desk, before: Image | None, after: Image) -> Sequence[diff.Change] | None:
    """Return how the parts of two images differ, by their SBOMs; None if one of them is not here. May block."""
    old, new = _components(desk, before), _components(desk, after)
    return None if old is None or new is None else diff.component_changes(old, new)


def _components(desk: Desk, image: Image | None) -> diff.Components | None:
    """Return what the SBOM of an image lists, as it lies in the store."""
    file = next((file for file in image.files if file.type == "sbom"), None) if image else None
    if image is None or file is None:
        return None
    try:
        sbom = b"".join(desk.store.read(image.request_hash, file.name, 0, file.size))
    except FileNotFoundError:
        return None
    return diff.components(sbom, file.name)
