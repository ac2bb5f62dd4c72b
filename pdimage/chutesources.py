"""Reads what a description says of each chute, and the chute's descriptor, whose mistakes get file and line too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paradrop.lib import descriptor
from paradrop.lib.checks import Fields, matches
from paradrop.lib.errors import DescriptorError
from pdimage.description import ChuteSource
from pdimage.errors import Mistake
from pdimage.inherit import DESCRIPTORS, resolve
from pdimage.yamlsource import Document, below, document, read

_NAME = matches(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "letters, digits and . _ -")


def mistake_in(chute: ChuteSource, path: str, text: str) -> Mistake:
    """Return a mistake at PATH of a chute's descriptor, which is a file of its own or a part of the description."""
    for file in [chute.path / name for name in DESCRIPTORS] if chute.path else []:
        if file.is_file():
            return document(read(file)[0]).mistake(path, text)
    return chute.place.mistake(below(f"{chute.where}.config", path), text)


@dataclass
class ChuteReader:
    """Takes the items of ``chutes`` apart."""

    document: Document
    mistakes: list[Mistake]

    def read(self, fields: Fields) -> ChuteSource | None:
        """Return the chute that FIELDS describe, None if it can't be used."""
        place = self.document.place(fields.path)
        path, archive = self._existing(fields, "path", Path.is_dir, "directory"), \
            self._existing(fields, "archive", Path.is_file, "file")
        given = fields.get("config")
        name = fields.text("name", _NAME)
        fields.close()
        if "path" not in fields and "archive" not in fields:
            fields.mistakes.append(f"{fields.path}: needs a path (a directory with config.yaml) or an image archive")
            return None
        if ("path" in fields and path is None) or ("archive" in fields and archive is None):
            return None
        if "path" in fields and given is not None:
            fields.wrong("config", "says what the descriptor in path says; keep one of them")
        if path is not None:
            config, source, prefix = self._descriptor(path, fields)
        else:
            config, source, prefix = given, self.document, fields.at("config")
        if config is None:
            config, source, prefix = {}, self.document, fields.path
        if not isinstance(config, Mapping):
            self.mistakes.append(source.mistake(prefix, "must be a mapping, as a chute's config.yaml"))
            return None
        known = name or str(config.get("name") or (path or archive or Path("chute")).name.partition(".")[0])
        if path is not None or given is not None:
            self._check({"name": known, **config}, archive is None, source, prefix)
        if name and config.get("name") not in (None, name):
            fields.wrong("name", f"is not what the chute's descriptor says, {config['name']!r}; leave it out")
        return ChuteSource(known, path, archive, config, place, fields.path)

    def _existing(self, fields: Fields, key: str, exists: Any, kind: str) -> Path | None:
        text = fields.text(key)
        if text is None:
            return None
        path = resolve(self.document.place(fields.at(key)), text)
        if exists(path):
            return path
        fields.wrong(key, f"{path} is not a {kind} that is there; write a path relative to this file")
        return None

    def _descriptor(self, path: Path, fields: Fields) -> tuple[Any, Document, str]:
        file = next((path / name for name in DESCRIPTORS if (path / name).is_file()), None)
        if file is None:
            fields.wrong("path", f"{path} has no {' or '.join(DESCRIPTORS)}; a chute is described by one")
            return None, self.document, fields.path
        root, mistakes = read(file)
        self.mistakes += mistakes
        found = document(root)
        return found.data, found, ""

    def _check(self, config: Mapping[str, Any], built: bool, source: Document, prefix: str) -> None:
        """Note what the runtime would refuse about a descriptor; only what is BUILT must say from what."""
        try:
            descriptor.parse(config, complete=built)
        except DescriptorError as error:
            for mistake in error.mistakes:
                path, _, text = mistake.partition(": ")
                self.mistakes.append(source.mistake(below(prefix, path), text))
