"""The present-day API beside the documented one (openwrt/asu as of 2026): ``/api/v1/build`` and ``/json/v1``.

Clients find versions, boards and renamed packages in the JSON documents, and ask only for images. Of the documents'
distribution-wide addresses the query ``distro`` chooses another than the first.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import fussy
from fussy.moments import utc
from pdimage.server import answers, asking, names
from pdimage.server.catalogue import Catalogue, Distro, Version
from pdimage.server.desk import Desk
from pdimage.server.entries import Entry
from pdimage.server.http import answer, body, client_of, in_thread
from pdimage.server.refusals import Refused, bad


class Present:
    """The handlers of the present-day API."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def build(self, request: Request) -> Response:
        """Ask for an image."""
        content = await body(request, self.desk.settings)
        asked = asking.modern(await self.desk.catalogue(), content, self.desk.settings)
        return await self._said(await self.desk.accept(asked, client_of(request)))

    async def poll(self, request: Request) -> Response:
        """Ask how far an image is."""
        digest = request.path_params["request_hash"]
        entry = await self.desk.find(digest) if names.is_good("hash", digest) else None
        if entry is None:
            raise Refused(404, "could not find provided request hash")
        return await self._said(entry)

    async def _said(self, entry: Entry) -> Response:
        manifest: Mapping[str, str] | None = None
        log: str = ""
        if entry.image:
            manifest = await in_thread(self.desk.images.manifest, entry.image.manifest_hash)
        if entry.state in ("done", "failed"):
            found: str | None = await in_thread(self.desk.requests.log, entry.hash)
            log = found or ""
        said = answers.present(entry, manifest, log)
        return answer(said.body, said.status, said.headers)

    async def revision(self, request: Request) -> Response:
        """Tell the revision that a version has for a target."""
        catalogue, distro = await self._distro(request)
        version, target = request.path_params["version"], "{target}/{subtarget}".format(**request.path_params)
        if version not in distro[1].versions or target not in catalogue.targets(distro[0], version):
            raise Refused(404, f"there is no {names.shown(version)} for {names.shown(target)}")
        known = catalogue.target(distro[0], version, target)
        return answer({"revision": (known and known.revision) or distro[1].versions[version].revision or version})

    async def latest(self, request: Request) -> Response:
        """List the newest version of each branch, the newest branch first."""
        _, (_, distro) = await self._distro(request)
        return answer({"latest": [branch["latest"] for branch in reversed(branches(distro).values())]})

    async def branches(self, request: Request) -> Response:
        """List the branches with versions, targets and what became of packages."""
        catalogue, (name, distro) = await self._distro(request)
        return answer(branches(distro, catalogue, name))

    async def overview(self, request: Request) -> Response:
        """Tell all of it at once, and what the server allows."""
        catalogue, (name, distro) = await self._distro(request)
        found = branches(distro, catalogue, name)
        return answer({
            "latest": [branch["latest"] for branch in reversed(found.values())], "branches": found,
            "upstream_url": self.desk.settings.url, "server": {
                "version": fussy.__version__, "contact": "", "allow_defaults": self.desk.settings.allow_defaults,
                "repository_allow_list": [], "distros": list(catalogue.distros)}})

    async def boards(self, request: Request) -> Response:
        """List the boards of a version, with their targets."""
        catalogue, (name, distro) = await self._distro(request)
        version = _version(distro, request)
        found = [{"id": board.profile, "target": target, "titles": [{"title": board.model or board.profile}]}
                 for target in catalogue.targets(name, version)
                 if (known := catalogue.target(name, version, target)) for board in known.boards.values()]
        return answer({"release": version, "profiles": found})

    async def target(self, request: Request) -> Response:
        """List the packages of a target, with versions."""
        catalogue, (name, distro) = await self._distro(request)
        version, target = _version(distro, request), "{target}/{subtarget}".format(**request.path_params)
        known = catalogue.target(name, version, target) if target in catalogue.targets(name, version) else None
        if known is None:
            raise Refused(404, f"nothing is known of {names.shown(target)}")
        return answer({"version": 2, "architecture": target.partition("/")[0],
                       "packages": {title: package.version for title, package in sorted(known.packages.items())}})

    async def board(self, request: Request) -> Response:
        """Describe a board of a target."""
        catalogue, (name, distro) = await self._distro(request)
        version, target = _version(distro, request), "{target}/{subtarget}".format(**request.path_params)
        known = catalogue.target(name, version, target) if target in catalogue.targets(name, version) else None
        board = known and known.boards.get(request.path_params["profile"])
        if not known or not board:
            raise Refused(404, "nothing is known of this board")
        return answer({
            "id": board.profile, "target": target, "titles": [{"title": board.model or board.profile}],
            "supported_devices": [board.profile, *board.names], "version_number": version,
            "version_code": known.revision, "default_packages": list(known.defaults),
            "device_packages": list(board.packages)})

    async def stats(self, request: Request) -> Response:
        """Tell how many requests wait."""
        return answer({"queue_length": await in_thread(self.desk.requests.waiting)})

    async def summary(self, request: Request) -> Response:
        """Tell how many requests there are, by state, and how many images were ever built."""
        return answer(await in_thread(self.desk.images.totals))

    async def by_day(self, request: Request) -> Response:
        """Tell how many images were built each day."""
        return _series(await in_thread(self.desk.images.counted, "day", 1000))

    async def by_version(self, request: Request) -> Response:
        """Tell how many images were built of each version."""
        return _series(await in_thread(self.desk.images.counted, "version", 1000))

    async def top_packages(self, request: Request) -> Response:
        """Tell which packages are asked for most."""
        return _series(await in_thread(self.desk.images.counted, "package", 50))

    async def errors(self, request: Request) -> Response:
        """List the builds that failed last, as text."""
        lines = [f"{utc(one['date'])} {one['request_hash']} "
                 f"{one['distro']} {one['version']} {one['target']} {one['profile']}: {one['error']}\n"
                 for one in await in_thread(self.desk.images.failures, 100)]
        return Response("".join(lines) or "no errors\n", media_type="text/plain")

    async def _distro(self, request: Request) -> tuple[Catalogue, tuple[str, Distro]]:
        catalogue = await self.desk.catalogue()
        name = request.query_params.get("distro") or next(iter(catalogue.distros))
        if name not in catalogue.distros:
            raise bad(f"unknown distribution {names.shown(name)}")
        return catalogue, (name, catalogue.distros[name])


def _series(rows: list[tuple[str, int, float]]) -> Response:
    return answer({"labels": [name for name, _, _ in rows], "datasets": [{"data": [count for _, count, _ in rows]}]})


def _version(distro: Distro, request: Request) -> str:
    version = str(request.path_params["version"])
    if version not in distro.versions:
        raise Refused(404, f"there is no version {names.shown(version)}")
    return version


def branch_of(name: str, version: Version) -> str:
    """Return the branch of a version: its first two numbers, or the snapshot's name.

    >>> branch_of("23.05.5", Version()), branch_of("1.1", Version()), branch_of("SNAPSHOT", Version(snapshot=True))
    ('23.05', '1.1', 'SNAPSHOT')
    """
    return name if version.snapshot else ".".join(name.split(".")[:2])


def branches(distro: Distro, catalogue: Catalogue | None = None, name: str = "") -> dict[str, dict[str, Any]]:
    """Return the branches of a distribution, oldest first, as ``branches.json`` has them."""
    found: dict[str, dict[str, Any]] = {}
    for title, version in distro.versions.items():
        label = branch_of(title, version)
        branch = found.setdefault(label, {
            "name": label, "enabled": True, "snapshot": version.snapshot, "path": "releases/{version}", "versions": [],
            "targets": {}, "package_changes": [], "latest": title})
        branch["versions"].append(title)
        branch["latest"] = title
        if catalogue:
            branch["targets"] |= {target: target.partition("/")[0] for target in catalogue.targets(name, title)}
        for change in version.changes:
            follower = change.to or next((one for one, context in change.by.items() if not context), "")
            branch["package_changes"].append({
                "source": change.package, **({"target": follower} if follower else {}), "mandatory": True,
                "revision": version.revision or title})
    return found


