"""Turns image archives into blobs of an OCI image layout, the same ones for the same image.

An engine notes when it built what: the times of files, of the configuration, of its history. In an image that was built
for a tree no time is later than the tree's own (as ``SOURCE_DATE_EPOCH`` is meant, reproducible-builds.org), and the
configuration keeps only what OCI Image Format 1.0 and Docker Image Specification 1.2 define. An archive that the user
gave stays what it is, so that its image has the same id.

Blobs and the records of what was done lie in a cache::

    blobs/sha256/DIGEST        layers, configurations, manifests
    images/KEY                 digest of the manifest that an image became
    layers/DIFF_ID-TIME        digest that a layer became
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pdimage import layertimes
from pdimage.imagearchive import ImageArchive, open_archive

_BLOCK = 1 << 20
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_IMAGE_KEYS = ("architecture", "variant", "os", "os.version", "os.features", "author")
_RUN_KEYS = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
             "StopTimeout", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell")
_HISTORY_KEYS = ("created_by", "author", "comment", "empty_layer")


@dataclass(frozen=True)
class OciImage:
    """An image whose blobs are in a cache. Digests are hex; layers are the lowest first."""

    manifest: str
    config: str
    layers: tuple[str, ...]
    platform: Mapping[str, str]
    labels: Mapping[str, str]

    @property
    def blobs(self) -> tuple[str, ...]:
        """The digests of all its blobs, each once."""
        return tuple(dict.fromkeys([self.manifest, self.config, *self.layers]))


class Blobs:
    """The cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("blobs/sha256", "images", "layers"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob lies."""
        return self.root / "blobs/sha256" / digest

    def known(self, key: str) -> OciImage | None:
        """Return the image that a key stands for, None if it is not here, or not all of it."""
        manifest = self._record("images", key)
        image = manifest and self._image(manifest)
        return image if image and all(self.path(digest).exists() for digest in image.blobs) else None

    def take(self, archive: Path, key: str, time: int | None) -> OciImage:
        """Take an image in from an archive. TIME: the latest that may be noted in it; None leaves it as it is.

        :raises PartFailed: the archive can't be used
        """
        with open_archive(archive) as image:
            manifest = self._convert(image, time)
        self._note("images", key, manifest)
        found = self._image(manifest)
        assert found is not None
        return found

    def name(self, key: str, image: OciImage) -> None:
        """Have another key stand for an image that is here."""
        self._note("images", key, image.manifest)

    def forget(self, digest: str) -> None:
        """Drop a blob that is damaged; what needs it is made anew."""
        self.path(digest).unlink(missing_ok=True)

    def _convert(self, image: ImageArchive, time: int | None) -> str:
        config = json.loads(image.config)
        diff_ids = [str(text).removeprefix("sha256:") for text in config["rootfs"]["diff_ids"]]
        if len(diff_ids) != len(image.layers):
            raise ValueError(f"{len(image.layers)} layers are there, but {len(diff_ids)} in its configuration")
        layers = [self._layer(image, name, diff_id, time)
                  for name, diff_id in zip(image.layers, diff_ids, strict=True)]
        content = image.config if time is None else _canonical(settled_config(config, layers, time))
        manifest = {
            "schemaVersion": 2, "mediaType": _MANIFEST, "config": self._descriptor(_CONFIG, self._write(content)),
            "layers": [self._descriptor(_LAYER, layer) for layer in layers]}
        return self._write(_canonical(manifest))

    def _layer(self, image: ImageArchive, name: str, diff_id: str, time: int | None) -> str:
        known = diff_id if time is None else self._record("layers", f"{diff_id}-{time}")
        if known and self.path(known).exists():
            return known
        with image.layer(name) as source, self._new() as new:
            checked = _Hashed(source)
            if time is None:
                while block := checked.read(_BLOCK):
                    new.write(block)
            else:
                layertimes.settle(checked, new, time)
            while checked.read(_BLOCK):
                pass
            if checked.hexdigest() != diff_id:
                raise ValueError(f"its layer {name} is not the one that its configuration names")
            digest = new.hexdigest()
        if time is not None:
            self._note("layers", f"{diff_id}-{time}", digest)
        return digest

    def _image(self, manifest: str) -> OciImage | None:
        try:
            document = json.loads(self.path(manifest).read_bytes())
            config = str(document["config"]["digest"]).removeprefix("sha256:")
            facts = json.loads(self.path(config).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        platform = {key: str(facts[key]) for key in ("architecture", "os", "variant") if facts.get(key)}
        return OciImage(manifest, config,
                        tuple(str(layer["digest"]).removeprefix("sha256:") for layer in document["layers"]),
                        platform, (facts.get("config") or {}).get("Labels") or {})

    def _descriptor(self, kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": self.path(digest).stat().st_size}

    def _write(self, content: bytes) -> str:
        with self._new() as new:
            new.write(content)
        return new.hexdigest()

    @contextmanager
    def _new(self) -> Iterator["_Hashed"]:
        """Open a new blob; at the end it gets the name of its content."""
        with tempfile.NamedTemporaryFile(dir=self.root / "blobs", delete=False) as file:
            temporary = Path(file.name)
            try:
                new = _Hashed(file)
                yield new
                file.flush()
                temporary.chmod(0o644)
                temporary.rename(self.path(new.hexdigest()))
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _record(self, kind: str, key: str) -> str | None:
        try:
            return (self.root / kind / key).read_text()
        except FileNotFoundError:
            return None

    def _note(self, kind: str, key: str, digest: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.root / kind, prefix=".", delete=False) as file:
            file.write(digest)
        Path(file.name).rename(self.root / kind / key)


def settled_config(config: Mapping[str, Any], layers: list[str], time: int) -> dict[str, Any]:
    """Return an image's configuration with the digests of its settled LAYERS, and nothing of when and where.

    >>> settled_config({"id": "1", "os": "linux", "config": {"Hostname": "h", "Cmd": ["sh"]}}, [], 0)["config"]
    {'Cmd': ['sh']}
    """
    created = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = config.get("config") or {}
    return {
        **{key: config[key] for key in _IMAGE_KEYS if config.get(key)},
        "created": created, "config": {key: run[key] for key in _RUN_KEYS if run.get(key)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
        "history": [{"created": created, **{key: step[key] for key in _HISTORY_KEYS if step.get(key)}}
                    for step in config.get("history") or ()],
    }


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class _Hashed:
    """A file that knows the SHA-256 of what went through it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        self._sha256.update(content)
        return content

    def write(self, content: bytes) -> int:
        self._sha256.update(content)
        return int(self._file.write(content))

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()
