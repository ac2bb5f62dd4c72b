"""Errors of the build side, beside those of :mod:`fussy.errors`.

::

    FussyError
    ├── Mistakes     50   the description, or what it names, is wrong; every mistake is listed
    └── PartFailed   51   a sound description, but a part could not be built (pip, dpkg-deb, Docker)

Nothing is left behind by either: a tree appears under its name only when it is complete.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fussy.errors import FussyError


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in what the user wrote. ``line`` counts from 1; 0 stands for the file as a whole.

    ``path`` is the place in the document (``chutes[0].path``), ``text`` says what is wrong and what would be right.
    """

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.text}" if self.path else f"{where}: {self.text}"


class Mistakes(FussyError):
    """What is to be built can't be: ``mistakes`` has all reasons, in the order of the files."""

    exit_code = 50

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(dict.fromkeys(mistakes))
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"cannot build: {count}", *map(str, self.mistakes)]))


class PartFailed(FussyError):
    """A part of the image could not be built; the message has the end of what the tool printed."""

    exit_code = 51
