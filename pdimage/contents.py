"""Finds the packages in containers: what dpkg, apk and Python note of them in the layers of an OCI image layout.

Layers are read once, lowest first, as OCI Image Format 1.0 ("Image Layer Filesystem Changeset") says: a later file
replaces an earlier one, ``.wh.NAME`` takes NAME away, ``.wh..wh..opq`` all that lower layers have in its directory.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from email.parser import Parser
from pathlib import Path

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from pdimage import copyrights, debcontrol, wheels
from pdimage.components import Component
from pdimage.errors import PartFailed

BLOBS = "share/oci/blobs/sha256"
_NOTED = re.compile(
    r"var/lib/dpkg/status|var/lib/dpkg/status\.d/[^/]+(?<!\.md5sums)|(?:usr/)?lib/apk/db/installed"
    r"|(?:etc|usr/lib)/os-release|usr/share/doc/[^/]+/copyright"
    r"|(?:.*/)?[^/]+\.dist-info/METADATA|(?:.*/)?[^/]+\.egg-info/PKG-INFO")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_ID = re.compile(r'^ID="?([a-z0-9._-]+)"?', re.MULTILINE)
# No list of packages is longer; what is, is something else.
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Layer:
    """What is of interest in a layer. ``gone``: paths that it takes away; with a ``/`` at the end, all below."""

    files: Mapping[str, bytes]
    gone: frozenset[str]


def find(tree: Path, containers: Iterable[Component]) -> tuple[Component, ...]:
    """Return the packages inside each of CONTAINERS, whose ``sha256`` names the image's manifest in TREE's layout.

    :raises PartFailed: a blob is not there or can't be read
    """
    layers: dict[str, Layer] = {}
    found: set[Component] = set()
    for container in containers:
        try:
            files = _files(tree / BLOBS, container.sha256, layers)
            found.update(replace(package, inside=container.purl) for package in packages(files))
        except (OSError, ValueError, KeyError, tarfile.TarError) as error:
            raise PartFailed(f"cannot list what is in the container {container.name}: {error}") from error
    return tuple(sorted(found))


def _files(blobs: Path, manifest: str, layers: dict[str, Layer]) -> dict[str, bytes]:
    """Return the files of interest in the image with this MANIFEST; LAYERS holds what was read before."""
    merged: dict[str, bytes] = {}
    for descriptor in json.loads((blobs / manifest).read_bytes())["layers"]:
        digest = str(descriptor["digest"]).removeprefix("sha256:")
        layer = layers.get(digest) or layers.setdefault(digest, read_layer(blobs / digest))
        merged = {path: content for path, content in merged.items() if not _is_gone(path, layer.gone)}
        merged |= layer.files
    return merged


def _is_gone(path: str, gone: frozenset[str]) -> bool:
    above = path
    while above:
        if above in gone:
            return True
        above = above.rpartition("/")[0]
        if f"{above}/" in gone:
            return True
    return False


def read_layer(file: Path) -> Layer:
    """Read a layer, a tar archive (compressed or not)."""
    files: dict[str, bytes] = {}
    gone = set()
    with tarfile.open(file, "r:*", errors="surrogateescape") as archive:
        for member in archive:
            path = os.path.normpath(member.name).lstrip("/")
            directory, _, name = path.rpartition("/")
            if name == _OPAQUE:
                gone.add(f"{directory}/")
            elif name.startswith(_WHITEOUT):
                gone.add(os.path.join(directory, name.removeprefix(_WHITEOUT)))
            elif _NOTED.fullmatch(path) and member.isreg() and member.size <= _LARGEST:
                content = archive.extractfile(member)
                files[path] = content.read() if content else b""
    return Layer(files, frozenset(gone))


def packages(files: Mapping[str, bytes]) -> Iterator[Component]:
    """Yield the packages that FILES, by their path in a container, tell of."""
    texts = {path: content.decode(errors="replace") for path, content in files.items()}
    release = _ID.search(texts.get("etc/os-release", "") + "\n" + texts.get("usr/lib/os-release", ""))
    system = release[1] if release else ""
    status = "\n\n".join(text for path, text in sorted(texts.items()) if path.startswith("var/lib/dpkg/"))
    yield from _debian(status, system or "debian", texts)
    for path, text in sorted(texts.items()):
        if path.endswith("apk/db/installed"):
            yield from _alpine(text, system or "alpine")
        elif path.endswith(("/METADATA", "/PKG-INFO")):
            yield from _python(text)


def _debian(status: str, system: str, texts: Mapping[str, str]) -> Iterator[Component]:
    installed = {paragraph["Package"]: paragraph for paragraph in debcontrol.paragraphs(status)
                 if paragraph.get("Status", "install ok installed").endswith(" installed") and paragraph.get("Package")}
    purls = {name: PackageURL("deb", system, name, facts.get("Version", ""),
                              {"arch": facts.get("Architecture", "")}).to_string()
             for name, facts in installed.items()}
    for name, facts in installed.items():
        needs = debcontrol.names(f"{facts.get('Pre-Depends', '')}, {facts.get('Depends', '')}")
        licences = copyrights.parse(texts.get(f"usr/share/doc/{name}/copyright", ""))
        yield Component("debian", name, facts.get("Version", ""), tuple(licences), purls[name],
                        requires=tuple(sorted({purls[need] for need in needs if need in purls})))


def _alpine(installed: str, system: str) -> Iterator[Component]:
    for paragraph in installed.split("\n\n"):
        facts = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
        if facts.get("P"):
            purl = PackageURL("apk", system, facts["P"], facts.get("V", ""), {"arch": facts.get("A", "")})
            yield Component("alpine", facts["P"], facts.get("V", ""), tuple(filter(None, [facts.get("L", "")])),
                            purl.to_string())


def _python(text: str) -> Iterator[Component]:
    metadata = Parser().parsestr(text, headersonly=True)
    name, version = canonicalize_name(metadata["Name"] or ""), metadata["Version"] or ""
    if name:
        yield Component("python", name, version, tuple(wheels.stated_licences(metadata)),
                        PackageURL("pypi", None, name, version).to_string())
