"""Where disks come from: the system that the lab builds, and repositories of other systems.

A repository is described by JSON, ``repo.metadata``::

    {"name": "office",
     "sources": {"web": {"type": "http", "args": {"baseurl": "http://images.example/"}},
                 "here": {"type": "file", "args": {"root": "/srv/images"}}},
     "templates": {"router": {"versions": {"v1": {"source": "here", "handle": "router-v1",
                                                      "timestamp": "1448000000"}}}}}

The file of a version is its handle, beside it HANDLE.hash with its SHA-256, and HANDLE.metadata (JSON) if there is any.
"""

import hashlib
import json
import logging
import shutil
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fussy.errors import FussyError, SystemSetup
from pdimage import tools
from pdimage.lab import config, dirlock, images, snapshots

log = logging.getLogger(__name__)

BUILT_IN = "debian"
FETCH_SECONDS = 60


class TemplateFailed(FussyError, RuntimeError):
    """A template is not there, or is not what its repository says."""


class Source(Protocol):
    """Where a repository's files are."""

    def open(self, handle: str) -> Any:
        """Return the file HANDLE, opened for reading."""


@dataclass(frozen=True)
class FileSource:
    """Files in the directory ROOT."""

    root: Path

    def open(self, handle: str) -> Any:
        path = (self.root / handle).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise TemplateFailed(f"cannot use the template {handle}: it is outside {self.root}")
        return path.open("rb")


@dataclass(frozen=True)
class HttpSource:
    """Files below the address BASEURL."""

    baseurl: str

    def open(self, handle: str) -> Any:
        address = urllib.parse.urljoin(self.baseurl.rstrip("/") + "/", urllib.parse.quote(handle))
        if not address.startswith(("http://", "https://")):
            raise TemplateFailed(f"cannot use the template {handle}: {address} is not an address of the web")
        return urllib.request.urlopen(address, timeout=FETCH_SECONDS)


@dataclass(frozen=True)
class TemplateVersion:
    """One version of a template: TIMESTAMP says when it was made, HANDLE where it is in its source."""

    name: str
    source: Source
    handle: str
    timestamp: float

    def hash(self) -> str:
        """Return the SHA-256 of its file, as the repository says."""
        return self._text(".hash").split()[0]

    def metadata(self) -> dict[str, Any]:
        """Return what the repository says about it, which may be nothing."""
        try:
            found: dict[str, Any] = json.loads(self._text(".metadata"))
        except TemplateFailed:
            return {}
        return found

    def download(self, destination: Path) -> None:
        """Write its file to DESTINATION.

        :raises TemplateFailed: it can't be had, or is not what the repository says
        """
        digest = hashlib.sha256()
        try:
            with self.source.open(self.handle) as source, destination.open("wb") as target:
                while data := source.read(1 << 20):
                    digest.update(data)
                    target.write(data)
        except OSError as error:
            raise TemplateFailed(f"cannot fetch the template {self.handle}: {error}") from error
        if digest.hexdigest() != self.hash():
            raise TemplateFailed(f"cannot use the template {self.handle}: it does not have the SHA-256 of its "
                                 "repository; fetch it again or ask who runs the repository")

    def _text(self, ending: str) -> str:
        try:
            with self.source.open(self.handle + ending) as file:
                return str(file.read().decode())
        except OSError as error:
            raise TemplateFailed(f"cannot read {self.handle}{ending}: {error}") from error


@dataclass(frozen=True)
class Template:
    """A system in several versions."""

    name: str
    versions: dict[str, TemplateVersion]

    def get_version(self, ver_name: str | None = None) -> TemplateVersion:
        """Return the version VER_NAME, the latest without a name.

        :raises TemplateFailed: there is none
        """
        if ver_name is None:
            return self.get_latest_version()
        if ver_name not in self.versions:
            raise TemplateFailed(f"cannot find version {ver_name} of the template {self.name}: there are "
                                 f"{', '.join(self.versions)}")
        return self.versions[ver_name]

    def get_latest_version(self) -> TemplateVersion:
        """Return the version with the latest time."""
        return max(self.versions.values(), key=lambda version: version.timestamp)


class TemplateRepository:
    """Systems that can be had, as the description DOM (see the top of this module) says."""

    def __init__(self, dom: dict[str, Any]) -> None:
        self._dom = dom
        self._sources = {name: _source(name, spec) for name, spec in dom.get("sources", {}).items()}

    @classmethod
    def from_url(cls, path: str) -> "TemplateRepository":
        """Return the repository that the file or address PATH describes.

        :raises TemplateFailed: it can't be read
        """
        try:
            if path.startswith(("http://", "https://")):
                with urllib.request.urlopen(path, timeout=FETCH_SECONDS) as file:
                    return cls(json.load(file))
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise TemplateFailed(f"cannot read the repository {path}: {error}") from error

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._dom["name"])

    def get_by_name(self, name: str) -> Template:
        """Return the template NAME.

        :raises TemplateFailed: there is none
        """
        spec = self._dom.get("templates", {}).get(name)
        if spec is None:
            raise TemplateFailed(f"cannot find the template {name}: {self.name} has "
                                 f"{', '.join(self._dom.get('templates', {})) or 'none'}")
        return Template(name, {
            version: TemplateVersion(f"{self.name}:{name}:{version}", self._sources[found["source"]], found["handle"],
                                     float(found["timestamp"]))
            for version, found in spec["versions"].items()})


def _source(name: str, spec: dict[str, Any]) -> Source:
    match spec:
        case {"type": "file", "args": {"root": root}}:
            return FileSource(Path(root))
        case {"type": "http", "args": {"baseurl": baseurl}}:
            return HttpSource(str(baseurl))
    raise TemplateFailed(f"cannot use the source {name} of a repository: its type must be file (with root) or http "
                         "(with baseurl)")


class TemplateStore:
    """The directory PATH with the templates that were fetched, each complete and never changed again."""

    def __init__(self, path: str | Path) -> None:
        self._root = Path(path)

    def __contains__(self, temp_ver: TemplateVersion) -> bool:
        return Path(self.get_path(temp_ver)).exists()

    def get_path(self, temp_ver: TemplateVersion) -> str:
        """Return the path that a template has here once it is fetched."""
        return str(self._root / temp_ver.name)

    def download(self, temp_ver: TemplateVersion) -> None:
        """Fetch a template if it is not here.

        :raises TemplateFailed: it can't be had, or is not what its repository says
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with dirlock.held(self._root):
            if temp_ver in self:
                return
            partial = Path(self.get_path(temp_ver) + ".partial")
            temp_ver.download(partial)
            self._beside(temp_ver, ".hash").write_text(temp_ver.hash(), encoding="utf-8")
            self._beside(temp_ver, ".metadata").write_text(json.dumps(temp_ver.metadata()), encoding="utf-8")
            partial.rename(self.get_path(temp_ver))

    def get_stored_hash(self, temp_ver: TemplateVersion) -> str:
        """Return the SHA-256 of a template that is here."""
        return self._beside(temp_ver, ".hash").read_text(encoding="utf-8")

    def get_stored_metadata(self, temp_ver: TemplateVersion) -> dict[str, Any]:
        """Return what is said about a template that is here."""
        found: dict[str, Any] = json.loads(self._beside(temp_ver, ".metadata").read_text(encoding="utf-8"))
        return found

    def _beside(self, temp_ver: TemplateVersion, ending: str) -> Path:
        return Path(self.get_path(temp_ver) + ending)


def create_disk(spec: dict[str, Any], path: Path, repo: TemplateRepository | None, store: TemplateStore | None
                ) -> tuple[str, dict[str, Any]]:
    """Make the disk that SPEC describes as PATH, or where its kind is; return where, and its template's metadata.

    :raises TemplateFailed: its template can't be had, or there is no such type of disks
    """
    kind = spec.get("type", "template")
    spec.setdefault("format", "raw" if kind == "nbd" else "qcow2")
    if kind == "template":
        base, base_format, metadata = _template(spec.get("template_name", BUILT_IN), spec.get("template_version"),
                                                repo, store)
        snapshots.overlay_of(base, base_format, path, spec.get("size"))
        return str(path), metadata
    if kind == "nbd":
        return str(spec["url"]), {}
    if kind == "file":
        return str(_copied(spec, path)), {}
    if kind == "empty":
        return str(_empty(spec, path)), {}
    raise TemplateFailed(f"cannot make the disk {spec['name']}: its type must be template, file, empty or nbd")


def _template(name: str, version: str | None, repo: TemplateRepository | None, store: TemplateStore | None
              ) -> tuple[Path, str, dict[str, Any]]:
    """Return file, format and metadata of a template, fetched or built if need be."""
    if repo is None and name == BUILT_IN:
        return images.debian(config.cache()).disk, "raw", {"distro": images.suite()}
    if repo is None or store is None:
        raise TemplateFailed(f"cannot find the template {name}: name a repository with --template-repo-path, or use "
                             f"{BUILT_IN}")
    template = repo.get_by_name(name).get_version(version)
    store.download(template)
    return Path(store.get_path(template)), "qcow2", store.get_stored_metadata(template)


def _copied(spec: dict[str, Any], path: Path) -> Path:
    target = path.with_suffix(f".{spec['format']}")
    try:
        shutil.copyfile(spec["path"], target)
    except OSError as error:
        raise SystemSetup(f"cannot make the disk {spec['name']}: {spec['path']}: {error.strerror}") from error
    return target


def _empty(spec: dict[str, Any], path: Path) -> Path:
    """Make a disk: empty, or with a file system if ``fs`` (ext4) asks for one, with the files of ``content`` in it."""
    raw, size = path.with_suffix(".raw"), str(spec["size"])
    if spec.get("fs"):
        tools.run(["mke2fs", "-q", "-t", "ext4", "-L", spec["name"][:16], "-E", "lazy_itable_init=0",
                   *(["-d", spec["content"]] if "content" in spec else []), raw, size], what="make a disk")
    else:
        tools.run(["qemu-img", "create", "-q", "-f", "raw", raw, size], what="make a disk")
    if spec["format"] == "qcow2":
        tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], what="make a disk")
        raw.unlink()
        return path
    return raw
