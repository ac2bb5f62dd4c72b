"""Every address of the API, with what it takes and answers. Routes and the OpenAPI document are made of this list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdimage.server import names
from pdimage.server.asu import Asu
from pdimage.server.desk import Desk
from pdimage.server.facts import Facts
from pdimage.server.files import Files
from pdimage.server.http import Handler
from pdimage.server.present import Present
from pdimage.server.visiting import STAGES, Visiting

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
HASH: Schema = {"type": "string", "pattern": names.pattern("hash")}


def listed(item: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item}


def mapped(item: Schema) -> Schema:
    """Return the schema of an object whose values are alike."""
    return {"type": "object", "additionalProperties": item}


def fields(required: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object with named fields."""
    return {"type": "object", "properties": properties, "required": required.split()}


ERROR = fields("error", error=TEXT, detail=TEXT, status=NUMBER, log=TEXT, request_hash=HASH)
WAITING = fields("request_hash", request_hash=HASH, queue_position=NUMBER)
BUILT = fields("request_hash image_hash files log", request_hash=HASH, image_hash=HASH, sysupgrade=TEXT, sha256=HASH,
               size=NUMBER, manifest_hash=HASH, files=TEXT, log=TEXT)
NEWER = fields("version upgrades packages", version=TEXT, upgrades=mapped(listed(TEXT)), packages=listed(TEXT),
               changes=fields(renamed=mapped(TEXT), dropped=mapped(TEXT)))
STORED = fields("image_hash request_hash manifest_hash", image_hash=HASH, request_hash=HASH, manifest_hash=HASH,
                distro=TEXT, version=TEXT, target=TEXT, profile=TEXT, sysupgrade=TEXT, worker=TEXT, build_date=TEXT)
SERIES = fields("labels datasets", labels=listed(TEXT), datasets=listed(fields("data", data=listed(NUMBER))))
PRESENT = fields("request_hash status detail", request_hash=HASH, status=NUMBER, detail=TEXT, manifest=mapped(TEXT),
                 images=listed(fields("name sha256", name=TEXT, sha256=HASH, type=TEXT)), bin_dir=TEXT)

_WHERE = {"distro": TEXT, "version": TEXT, "target": TEXT, "subtarget": TEXT}
CHECK = fields("distro target", **_WHERE, installed=mapped(TEXT), revision=TEXT, upgrade_packages=FLAG)
_IMAGE = {**_WHERE, "board": TEXT, "model": TEXT, "packages": listed(TEXT), "packages_versions": mapped(TEXT)}
ASK = fields("distro target board", **_IMAGE)
BUILD = fields("distro target board", **_IMAGE, defaults=TEXT)
PRESENT_ASK = fields(
    "distro version target profile", distro=TEXT, version=TEXT, version_code=TEXT, target=TEXT, profile=TEXT,
    packages=listed(TEXT), packages_versions=mapped(TEXT), diff_packages=FLAG, defaults=TEXT,
    rootfs_size_mb={"type": "integer", "minimum": 1, "maximum": 1024}, filesystem=TEXT, client=TEXT)

VISITOR = fields("distro target board", **_WHERE, board=TEXT, installed=mapped(TEXT), request=HASH, name=TEXT)
VISIT = fields("token page seconds", token=TEXT, page=TEXT, seconds=NUMBER)
DECISION = fields("state", state={"enum": ["wait", "install"]}, request_hash=HASH, request=ANY)
REPORT = fields("stage", stage={"enum": list(STAGES)}, text=TEXT,
                percent={"type": "integer", "minimum": 0, "maximum": 100})


@dataclass(frozen=True)
class Operation:
    """One method of an address. ``answers``: schema by status, None for no JSON; errors have all the same schema.

    ``secured``: it wants a token (``Authorization: Bearer``).
    """

    method: str
    path: str
    handler: Handler
    answers: Mapping[int, Schema | None]
    errors: Sequence[int] = ()
    body: Schema | None = None
    query: Sequence[str] = ()
    required: Sequence[str] = ()
    media: str = "application/json"
    secured: bool = False

    @property
    def about(self) -> str:
        """What it does: the first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]


_POST = (400, 408, 409, 413, 422, 429, 503)
_POLL = (404, 409, 413, 422, 500, 501, 503)


def operations(desk: Desk) -> list[Operation]:
    """Return the operations of a server."""
    return [*_documented(Asu(desk)), *_visits(Visiting(desk)), *_facts(Facts(desk)), *_present(Present(desk)),
            *_files(Files(desk))]


def _documented(asu: Asu) -> list[Operation]:
    done: Mapping[int, Schema | None] = {200: BUILT, 202: WAITING}
    return [
        Operation("POST", "/api/upgrade-check", asu.upgrade_check, {200: NEWER, 204: None}, _POST, CHECK),
        Operation("POST", "/api/upgrade-request", asu.upgrade_request, done, (*_POST, 500, 501), ASK),
        Operation("GET", "/api/upgrade-request/{request_hash}", asu.upgrade_poll, done, _POLL),
        Operation("POST", "/api/build-request", asu.build_request, done, (*_POST, 420, 500), BUILD),
        Operation("GET", "/api/build-request/{request_hash}", asu.build_poll, done, _POLL),
    ]


def _visits(visiting: Visiting) -> list[Operation]:
    here = "/api/visits/{token}"
    return [
        Operation("POST", "/api/visits", visiting.come, {201: VISIT}, _POST, VISITOR),
        Operation("GET", here, visiting.look, {200: DECISION}, (404, 503)),
        Operation("POST", here, visiting.report, {204: None}, (400, 404, 408, 409, 413, 503), REPORT),
    ]


def _facts(facts: Facts) -> list[Operation]:
    ok, where = (503,), (400, 503)
    return [
        Operation("GET", "/api/image/{image_hash}", facts.image, {200: STORED}, (404, 503)),
        Operation("GET", "/api/manifest/{manifest_hash}", facts.manifest, {200: mapped(TEXT)}, (404, 503)),
        Operation("GET", "/api/distros", facts.distros, {200: listed(ANY)}, ok),
        Operation("GET", "/api/distributions", facts.distributions, {200: mapped(ANY)}, ok),
        Operation("GET", "/api/versions", facts.versions, {200: listed(ANY)}, where, query=["distro"]),
        Operation("GET", "/api/models", facts.models, {200: listed(ANY)}, where,
                  query=["distro", "version", "model_search"], required=["distro", "version"]),
        Operation("GET", "/api/packages_image", facts.packages_image, {200: listed(TEXT)}, where,
                  query=["distro", "version", "target", "subtarget", "profile"],
                  required=["distro", "version", "target"]),
        Operation("GET", "/api/v1/supported", facts.supported, {200: listed(ANY)}, ok),
        Operation("GET", "/api/v1/stats/popular_packages", facts.popular_packages, {200: listed(ANY)}, ok),
        Operation("GET", "/api/v1/stats/popular_targets", facts.popular_targets, {200: listed(ANY)}, ok),
        Operation("GET", "/api/v1/stats/images", facts.images, {200: ANY}, ok),
        Operation("GET", "/api/v1/stats/packages", facts.packages, {200: ANY}, ok),
        Operation("GET", "/api/v1/stats/image_stats", facts.image_stats, {200: ANY}, ok),
        Operation("GET", "/api/v1/stats/images_latest", facts.images_latest, {200: listed(STORED)}, ok),
        Operation("GET", "/api/v1/stats/fails_latest", facts.fails_latest, {200: listed(ANY)}, ok),
    ]


def _present(present: Present) -> list[Operation]:
    ok, where, gone = (503,), (400, 503), (400, 404, 503)
    done: Mapping[int, Schema | None] = {200: PRESENT, 202: PRESENT}
    release = "/json/v1/releases/{version}"
    target = release + "/targets/{target}/{subtarget}"
    return [
        Operation("POST", "/api/v1/build", present.build, done, (*_POST, 420, 500), PRESENT_ASK),
        Operation("GET", "/api/v1/build/{request_hash}", present.poll, done, (404, 500, 503)),
        Operation("GET", "/api/v1/revision/{version}/{target}/{subtarget}", present.revision,
                  {200: fields("revision", revision=TEXT)}, gone, query=["distro"]),
        Operation("GET", "/api/v1/stats", present.stats, {200: fields("queue_length", queue_length=NUMBER)}, ok),
        Operation("GET", "/api/v1/stats/summary", present.summary, {200: mapped(NUMBER)}, ok),
        Operation("GET", "/api/v1/stats/builds-per-day", present.by_day, {200: SERIES}, ok),
        Operation("GET", "/api/v1/stats/builds-by-version", present.by_version, {200: SERIES}, ok),
        Operation("GET", "/api/v1/stats/top-packages", present.top_packages, {200: SERIES}, ok),
        Operation("GET", "/api/v1/stats/build-errors", present.errors, {200: TEXT}, ok, media="text/plain"),
        Operation("GET", "/json/v1/latest.json", present.latest, {200: fields("latest", latest=listed(TEXT))}, where,
                  query=["distro"]),
        Operation("GET", "/json/v1/branches.json", present.branches, {200: mapped(ANY)}, where, query=["distro"]),
        Operation("GET", "/json/v1/overview.json", present.overview, {200: ANY}, where, query=["distro"]),
        Operation("GET", f"{release}/overview.json", present.boards, {200: ANY}, gone, query=["distro"]),
        Operation("GET", f"{target}/index.json", present.target, {200: ANY}, gone, query=["distro"]),
        Operation("GET", f"{target}/{{profile}}.json", present.board, {200: ANY}, gone, query=["distro"]),
    ]


def _files(files: Files) -> list[Operation]:
    anything = {200: None, 206: None, 302: None, 416: None}
    return [
        Operation("GET", "/store/{request_hash}/{file}", files.file, anything, (404, 503),
                  media="application/octet-stream"),
        Operation("GET", "/json/{request_hash}/", files.listing, {200: listed(ANY)}, (404, 503)),
        Operation("GET", "/download/{request_hash}/buildlog.txt", files.log, {200: TEXT}, (404, 503),
                  media="text/plain"),
        Operation("GET", "/signing-key.asc", files.key, {200: TEXT}, (404,), media="application/pgp-keys"),
    ]
