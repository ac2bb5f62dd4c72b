"""What lasts on the router, outside any release: the chute store, chutes' data and leases, UCI files, accounts.

All of it lies in a few directories; what is in each of them is kept and brought back entry by entry, so a directory may
be a mount of its own.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from paradrop.lib import settings

PERSISTENT = ".fussy/persistent"
"""The file of a release that lists, one absolute path on a line, what else it wants to be kept."""
WORKSHOP = ".restore~"
"""The directory in each place where a restore prepares."""


class Place(msgspec.Struct, frozen=True):
    """Entries of a directory. only: the names that this is about; without them it is about all in the directory."""

    directory: str
    names: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    """Where snapshots lie, and what is never part of one."""

    snapshots: Path
    excluded: frozenset[Path]

    @classmethod
    def here(cls) -> "Root":
        """Return the one that the settings say: beside what is kept, so that files can be shared.

        Who the router is to its server, and what that has yet to hear, belongs to no release.
        """
        home = Path(settings.CONFIG_HOME_DIR)
        return cls(home / "snapshots", frozenset({home / "snapshots", home / "keys", home / "link",
                                                  Path(settings.LOG_PATH)}))

    def present(self, directory: Path, only: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the names in a directory that belong to a place, sorted."""
        if only:
            return tuple(sorted(name for name in only if os.path.lexists(directory / name)))
        if not directory.is_dir():
            return ()
        return tuple(sorted(item.name for item in directory.iterdir()
                            if item not in self.excluded and item.name != WORKSHOP))

    def places(self, release: Path | None) -> list[Place]:
        """Return what lasts now: of the settings, and of the list in a release."""
        return [Place(str(directory), self.present(directory, only), tuple(sorted(only)))
                for directory, only in _directories(_outermost([*own_paths(), *_listed(release)])).items()]


def own_paths() -> Iterator[Path]:
    """Yield where the runtime keeps what lasts; some may lie in others."""
    yield Path(settings.CONFIG_HOME_DIR)
    yield Path(settings.UCI_CONFIG_DIR)
    yield Path(settings.FC_CHUTESTORAGE_SAVE_PATH)
    yield Path(settings.UCI_BACKUP_DIR)
    for pattern in (settings.EXTERNAL_DATA_DIR, settings.EXTERNAL_SYSTEM_DIR):
        yield Path(pattern.partition("{chute}")[0])


def _listed(release: Path | None) -> Iterator[Path]:
    file = release and release / PERSISTENT
    if file and file.is_file():
        yield from (Path(line) for line in file.read_text().splitlines() if line.startswith("/"))


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Drop what lies in another directory of the list."""
    found = list(dict.fromkeys(paths))
    return [path for path in found if not any(path != other and path.is_relative_to(other) for other in found)]


def _directories(paths: Iterable[Path]) -> dict[Path, set[str]]:
    """Return the directories that hold the paths, each with the names that count in it; none stand for all."""
    found: dict[Path, set[str]] = {}
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            found[path] = set()
        else:
            found.setdefault(path.parent, set()).add(path.name)
    return found
