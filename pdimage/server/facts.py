"""What can be asked beside images: distributions, versions, boards, packages, images, numbers ("Request data")."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pdimage.server import answers, asking, names
from pdimage.server.catalogue import Catalogue
from pdimage.server.desk import Desk
from pdimage.server.http import answer, in_thread
from pdimage.server.refusals import Refused, bad


class Facts:
    """The handlers of the documented addresses for data."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def image(self, request: Request) -> Response:
        """Tell what is known of an image."""
        digest = request.path_params["image_hash"]
        found = await in_thread(self.desk.images.by_hash, digest) if names.is_good("hash", digest) else None
        if found is None:
            raise Refused(404, "this image is not known (any more)")
        return answer(answers.stored(*found))

    async def manifest(self, request: Request) -> Response:
        """List the packages of a manifest, with versions."""
        digest = request.path_params["manifest_hash"]
        found = await in_thread(self.desk.images.manifest, digest) if names.is_good("hash", digest) else None
        if found is None:
            raise Refused(404, "this manifest is not known (any more)")
        return answer(found)

    async def distros(self, request: Request) -> Response:
        """List the distributions with their newest version."""
        catalogue = await self.desk.catalogue()
        return answer([{"name": name, "alias": name, "latest": distro.newest, "description": distro.description}
                       for name, distro in catalogue.distros.items()])

    async def distributions(self, request: Request) -> Response:
        """List the distributions by name, with their versions."""
        catalogue = await self.desk.catalogue()
        return answer({name: {
            "alias": name, "latest": distro.newest, "description": distro.description,
            "versions": {title: {"alias": title, "description": version.description, "snapshots": version.snapshot}
                         for title, version in distro.versions.items()}}
            for name, distro in catalogue.distros.items()})

    async def versions(self, request: Request) -> Response:
        """List the versions, of one distribution if it is given."""
        catalogue = await self.desk.catalogue()
        wanted = request.query_params.get("distro", "").lower()
        if wanted and wanted not in catalogue.distros:
            raise bad(f"unknown distribution {names.shown(wanted)}")
        return answer([{"distro": name, "version": title, "alias": title, "description": version.description,
                        "snapshots": version.snapshot, "latest": title == distro.newest}
                       for name, distro in catalogue.distros.items() if wanted in ("", name)
                       for title, version in distro.versions.items()])

    async def models(self, request: Request) -> Response:
        """List the boards of a version whose model contains a text."""
        catalogue = await self.desk.catalogue()
        distro, version = _version(catalogue, request)
        text = request.query_params.get("model_search", "").casefold()
        found = []
        for target in catalogue.targets(distro, version):
            known = catalogue.target(distro, version, target)
            found += [{"distro": distro, "version": version, "target": target, "profile": board.profile,
                       "model": board.model or board.profile} for board in (known.boards.values() if known else ())
                      if text in board.model.casefold() or text in board.profile.casefold()]
        return answer(found)

    async def packages_image(self, request: Request) -> Response:
        """List the packages that an image has when nobody asks for others."""
        catalogue = await self.desk.catalogue()
        distro, version = _version(catalogue, request)
        target, subtarget = _parameter(request, "target"), request.query_params.get("subtarget", "")
        whole = f"{target}/{subtarget}" if subtarget and "/" not in target else target
        if whole not in catalogue.targets(distro, version):
            raise bad(f"unknown target {names.shown(whole)}")
        known = catalogue.target(distro, version, whole)
        if known is None:
            return answer([])
        board = asking.board(known.boards, request.query_params.get("profile", "").replace(",", "_"))
        if board is None:
            raise bad("unknown device, please check the profile")
        return answer(sorted({*known.defaults, *board.packages}))

    async def supported(self, request: Request) -> Response:
        """List all targets."""
        catalogue = await self.desk.catalogue()
        return answer([{"distro": name, "version": title, "target": target}
                       for name, distro in catalogue.distros.items() for title in distro.versions
                       for target in catalogue.targets(name, title)])

    async def popular_packages(self, request: Request) -> Response:
        """List the packages that were built most."""
        rows = await in_thread(self.desk.images.counted, "package")
        return answer([{"package_name": name, "count": count} for name, count, _ in rows])

    async def popular_targets(self, request: Request) -> Response:
        """List the targets that were built most, and the seconds it took on average."""
        rows = await in_thread(self.desk.images.counted, "target")
        return answer([{"target": name, "count": count, "build_seconds": round(seconds / count, 1)}
                       for name, count, seconds in rows])

    async def image_stats(self, request: Request) -> Response:
        """Tell how many images were built, are stored, and are asked for."""
        found = await in_thread(self.desk.images.totals)
        requested = found.get("queued", 0) + found.get("building", 0)
        return answer({"total": found["total"], "stored": found["stored"], "requested": requested})

    async def images(self, request: Request) -> Response:
        """Tell about the images that were built last, with the numbers of image_stats."""
        found = await in_thread(self.desk.images.totals)
        latest = await in_thread(self.desk.images.latest, 50)
        return answer({"total": found["total"], "stored": found["stored"],
                       "requested": found.get("queued", 0) + found.get("building", 0),
                       "images": [answers.stored(image, 0) for image in latest]})

    async def images_latest(self, request: Request) -> Response:
        """List the images that were built last."""
        return answer([answers.stored(image, 0) for image in await in_thread(self.desk.images.latest, 50)])

    async def fails_latest(self, request: Request) -> Response:
        """List the requests that failed last."""
        return answer(await in_thread(self.desk.images.failures, 50))

    async def packages(self, request: Request) -> Response:
        """Tell how many packages are known."""
        catalogue = await self.desk.catalogue()
        known: set[Any] = set()
        for name, distro in catalogue.distros.items():
            for title in distro.versions:
                for target in catalogue.targets(name, title):
                    found = catalogue.target(name, title, target)
                    known.update((name, package) for package in (found.packages if found else ()))
        return answer({"packages": len(known), "total": len(known)})


def _parameter(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value:
        raise Refused(400, f"{name} is missing", {"X-Missing-Param": name})
    return value


def _version(catalogue: Catalogue, request: Request) -> tuple[str, str]:
    distro, version = _parameter(request, "distro").lower(), _parameter(request, "version")
    if distro not in catalogue.distros:
        raise bad(f"unknown distribution {names.shown(distro)}")
    if version not in catalogue.distros[distro].versions:
        raise bad(f"unknown version {names.shown(version)}")
    return distro, version
