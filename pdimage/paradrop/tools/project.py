"""A chute's files on the user's computer, and what of them the router gets."""

import datetime
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paradrop.lib import descriptor, settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import ucitext
from paradrop.tools.errors import BadProject

_TAKES_FILES = re.compile(r"^\s*(?:ADD|COPY)\s+(?!.*--from=)(?!https?://)", re.IGNORECASE | re.MULTILINE)
_LEFT_OUT = {".git", ".hg", ".svn", "__pycache__"}
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Project:
    """A chute to install. ``archive`` is the tar of its directory, where the descriptor alone is not enough."""

    config: dict[str, Any]
    archive: bytes | None = None

    @property
    def name(self) -> str:
        """The chute's name."""
        return str(self.config["name"])


def read(path: Path) -> Project:
    """Read a chute's config.yaml or paradrop.yaml, or the one in a directory.

    A local Dockerfile, relative to the file, is put in as text, as the documented API wants it. Where it needs other
    files of its directory, or services are built from directories, these travel as an archive.

    Raises:
        BadProject: the files are missing or wrong; every mistake is told.
    """
    if path.is_dir():
        found = [path / name for name in ("paradrop.yaml", "config.yaml") if (path / name).exists()]
        if not found:
            raise BadProject(f"cannot read {path}: there is neither a paradrop.yaml nor a config.yaml in it")
        path = found[0]
    config = _load(path)
    if "services" not in config:
        for key in ("name", "owner"):
            if not isinstance(config.get(key), str):
                raise BadProject(f"cannot use {path}: {key} is missing or not a text")
    mistakes = descriptor.mistakes(config)
    if mistakes:
        raise BadProject(f"cannot use {path}: " + "; ".join(mistakes))
    text = _dockerfile(config, path)
    services = descriptor.parse(config).services
    builds = any(service.type in ("normal", "light") and service.download is None and service.dockerfile is None
                 for service in services)
    if text is not None and not _TAKES_FILES.search(text):
        return Project({**config, "dockerfile": text})
    return Project(config, _archive(path, config) if builds else None)


def read_sections(path: Path) -> list[dict[str, Any]]:
    """Read the sections of a UCI file that belong to no chute, as the API takes them.

    Raises:
        BadProject: the file is missing or is no UCI.
    """
    try:
        document = ucitext.parse(path.read_text(), str(path))
    except (OSError, ValueError) as error:
        raise BadProject(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except ParadropError as error:
        raise BadProject(error.message) from error
    return [{"type": title["type"], "name": title.get("name"), "lists": options.get("list", {}),
             "options": {key: value for key, value in options.items() if key != "list"}}
            for title, options in document.sections if title.get("comment") in (None, settings.RESERVED_CHUTE)]


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadProject(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise BadProject(f"cannot read {path}{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, Mapping):
        raise BadProject(f"cannot use {path}: it is not a mapping of keys to values")
    plain: dict[str, Any] = _plain(content)
    return plain


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: dates as ISO text, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _dockerfile(config: Mapping[str, Any], path: Path) -> str | None:
    """Return the text of the one Dockerfile of the form of 2015, None if the descriptor is of another kind."""
    source = config.get("dockerfile")
    if not isinstance(source, Mapping):
        return None
    if "inline" in source:
        return str(source["inline"])
    place = path.parent / str(source["local"])
    try:
        return place.read_text()
    except (OSError, ValueError) as error:
        raise BadProject(f"cannot read the Dockerfile {place}: {getattr(error, 'strerror', None) or error}") from error


def _archive(path: Path, config: Mapping[str, Any]) -> bytes:
    """Return the tar of the directory of a chute's file, which becomes its paradrop.yaml."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        text = yaml.safe_dump(dict(config), sort_keys=False).encode()
        first = tarfile.TarInfo("paradrop.yaml")
        first.size = len(text)
        tar.addfile(first, io.BytesIO(text))
        for file in sorted(path.parent.rglob("*")):
            inside = file.relative_to(path.parent)
            if _LEFT_OUT & set(inside.parts) or file == path or str(inside) == "paradrop.yaml":
                continue
            if file.is_symlink() or not (file.is_file() or file.is_dir()):
                raise BadProject(f"cannot send {file}: it is neither a file nor a directory")
            tar.add(file, str(inside), recursive=False)
            if content.tell() > _LARGEST:
                raise BadProject(f"cannot send {path.parent}: it holds more than {_LARGEST >> 20} MiB")
    return content.getvalue()
