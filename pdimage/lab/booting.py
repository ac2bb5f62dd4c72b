"""What a boot does with the disk that lost power, and what must be true then; on whichever kernel this runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fussy.target import Target
from pdimage.errors import PartFailed
from pdimage.lab import filesystems, scenes
from pdimage.lab.filesystems import FileSystem
from pdimage.lab.scenes import Scene


@contextmanager
def target(kind: FileSystem, source: Path, place: Path) -> Iterator[Target]:
    """Mount SOURCE below PLACE and have the target that is on it."""
    with filesystems.mounted(kind, source, place) as directory:
        yield Target(directory / "opt")


def boot(kind: FileSystem, source: Path, place: Path, scene: Scene, done: bool) -> tuple[bool, list[str]]:
    """Boot from SOURCE, on which SCENE was cut, or had ended (DONE).

    Return whether the file system had to be repaired, and what is wrong.
    """
    try:
        repaired = filesystems.check(kind, source)
        with target(kind, source, place) as found:
            if not found.root.exists():
                return repaired, [] if "" in scene.settled and not done else ["the target is gone"]
            problems = [*scenes.broken(found, scene), *scenes.recover(found), *scenes.unsettled(found, scene, done)]
            return repaired, list(dict.fromkeys(problems))
    except PartFailed as error:
        return False, [str(error)]
