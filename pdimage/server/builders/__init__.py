"""What makes images of a distribution: one module for each kind, all with the same two functions.

::

    manifest(task) -> {package: version}    what the image will have; raises Impossible
    build(task, manifest) -> Product        the image: a tree to be signed, or files; raises TooBig

They run in a process of their own (:mod:`pdimage.server.buildjob`), shut off from keys and database.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from fussy.errors import FussyError
from fussy.ondemand import Request
from pdimage.server.catalogue import Board, Distro, Target


class Impossible(FussyError):
    """The packages can't be together, or one of them can't be had; ``reasons`` say which and why."""

    exit_code = 52

    def __init__(self, *reasons: str, told: str = "Impossible package selection: ") -> None:
        super().__init__(f"{told}{'; '.join(reasons)}")
        self.reasons = reasons


class TooBig(FussyError):
    """The image does not fit on its board; the message says by how much."""

    exit_code = 53


class Task(msgspec.Struct, frozen=True):
    """What is to be built. It is written to a file for the build's process.

    ``hash``: of the request. ``place``: the build's own directory. ``cache``: shared by builds. ``root``: the directory
    of the catalogue. ``target``: what is known of the target, None for an ImageBuilder that is not set up. ``survey``:
    only ask an ImageBuilder what it has.
    """

    hash: str
    request: Request
    defaults: str
    distro: Distro
    target: Target | None
    root: str
    place: str
    cache: str
    engine: str = ""
    survey: bool = False

    @property
    def board(self) -> Board:
        """The board that the image is for."""
        boards = self.target.boards if self.target else {}
        return boards.get(self.request.profile) or Board(self.request.target, self.request.profile)


class Product(msgspec.Struct, frozen=True):
    """What came out: a tree for fussy-pack, or files, of which ``sysupgrade`` is the one that devices install."""

    tree: str = ""
    files: tuple[str, ...] = ()
    sysupgrade: str = ""
    details: dict[str, Any] = {}


Tell = Callable[[str], object]


class Builder(Protocol):
    """A module of this package."""

    def manifest(self, task: Task, tell: Tell) -> Mapping[str, str]:
        """Return the packages of the image, with versions.

        :raises Impossible: there can't be such an image
        """

    def build(self, task: Task, manifest: Mapping[str, str], tell: Tell) -> Product:
        """Make the image in the task's place.

        :raises TooBig: it does not fit on the board
        """


def builder(name: str) -> Builder:
    """Return the builder of a distribution, by the catalogue's word for it."""
    from pdimage.server.builders import imagebuilder, images

    return {"images": images, "imagebuilder": imagebuilder}[name]


def size_told(size: int, room: int, board: Board) -> str:
    """Return what is said of an image that is too big."""
    return (f"Selected packages exceed device storage: the image is too big for {board.model or board.profile}: it has "
            f"{size} bytes, {size - room} more than the {room} that fit; leave packages out")
