"""Choose a version, a board and packages; what contradicts itself is shown before anything is built."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from fussy import ondemand
from fussy.errors import FussyError
from pdimage.server import builders, names, packages
from pdimage.server.builders import Task
from pdimage.server.catalogue import Board, Catalogue, Target
from pdimage.server.desk import Desk
from pdimage.server.http import in_thread
from pdimage.server.pages.showing import Form, first, query, show
from pdimage.server.refusals import Refused, bad

# More boards than this are not listed; the search finds them.
_BOARDS = 60
_LATELY = 5


@dataclass(frozen=True)
class Choice:
    """What was chosen so far. ``target`` and ``profile`` are empty without a board."""

    distro: str
    version: str
    target: str = ""
    profile: str = ""

    @property
    def release(self) -> str:
        """The value of the field ``release``."""
        return f"{self.distro}/{self.version}"

    @property
    def board(self) -> str:
        """The value of the field ``board``."""
        return f"{self.target}/{self.profile}"


@dataclass(frozen=True)
class Verdict:
    """What an image would have: all its packages with versions; or why there can't be one."""

    packages: Sequence[tuple[str, str]] = ()
    problems: Sequence[str] = ()


class Choosing:
    """The pages on which an image is put together."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def start(self, request: Request) -> Response:
        """Show what can be built, and what was built lately."""
        catalogue = await self.desk.catalogue()
        lately = await in_thread(self.desk.images.latest, _LATELY)
        waiting = await in_thread(self.desk.requests.waiting)
        return show("start.html", distros=catalogue.distros, lately=lately, waiting=waiting)

    async def choose(self, request: Request) -> Response:
        """Show the boards of a version, or the packages for a board."""
        fields = query(request)
        catalogue = await self.desk.catalogue()
        choice = read(catalogue, fields)
        if not choice.profile:
            search = first(fields, "search")
            found = matching(boards(catalogue, choice), search)
            return show("boards.html", choice=choice, search=search, boards=found[:_BOARDS], left=len(found[_BOARDS:]))
        known = catalogue.target(choice.distro, choice.version, choice.target)
        if known is None:
            raise Refused(503, f"the server does not know {choice.target} yet; try again in some minutes")
        board = known.boards[choice.profile]
        wanted = chosen(fields, known) if "chosen" in fields else tuple(sorted({*known.defaults, *board.packages}))
        said = await in_thread(self._verdict, catalogue, choice, wanted)
        if first(fields, "part") == "verdict":
            return show("verdict.html", verdict=said)
        return show("packages.html", choice=choice, board=board, known=known.packages, wanted=wanted, verdict=said,
                    allow_defaults=self.desk.settings.allow_defaults)

    def _verdict(self, catalogue: Catalogue, choice: Choice, wanted: Sequence[str]) -> Verdict:
        return verdict(catalogue, ondemand.Request(
            choice.distro, choice.version, choice.target, choice.profile, tuple(wanted), diff_packages=True))


def read(catalogue: Catalogue, fields: Form) -> Choice:
    """Return what the fields ``release`` (``paradrop/1.1``) and ``board`` (``x86/64/generic``) choose.

    :raises Refused: there is no such thing
    """
    release, where = first(fields, "release"), first(fields, "board")
    distro, _, version = release.partition("/")
    if distro not in catalogue.distros or version not in catalogue.distros[distro].versions:
        raise Refused(404, f"there is no release {names.shown(release)}; go back and choose another")
    if not where:
        return Choice(distro, version)
    target, _, profile = where.rpartition("/")
    known = catalogue.target(distro, version, target) if target in catalogue.targets(distro, version) else None
    if known is None or profile not in known.boards:
        raise Refused(404, f"there is no board {names.shown(where)} in {release}; go back and choose another")
    return Choice(distro, version, target, profile)


def chosen(fields: Form, known: Target) -> tuple[str, ...]:
    """Return the packages whose boxes were ticked.

    :raises Refused: one is not known
    """
    wanted = tuple(sorted(set(fields.get("package", ()))))
    if missing := packages.unknown(known.packages, wanted):
        raise bad(f"there is no package {', '.join(names.shown(name) for name in missing)}")
    return wanted


def boards(catalogue: Catalogue, choice: Choice) -> list[Board]:
    """Return the boards that a version is built for, by what people call them."""
    found = [board for target in catalogue.targets(choice.distro, choice.version)
             if (known := catalogue.target(choice.distro, choice.version, target)) for board in known.boards.values()]
    return sorted(found, key=lambda board: (board.model or board.profile).casefold())


def matching(found: Sequence[Board], search: str) -> list[Board]:
    """Return the boards whose names have all words of a search.

    >>> matching([Board("x86/64", "generic", "PC"), Board("ath79/generic", "acme_ap", "ACME AP")], "ap acme")
    [Board(target='ath79/generic', profile='acme_ap', model='ACME AP')]
    """
    words = search.casefold().split()
    return [board for board in found
            if all(word in " ".join((board.model, board.profile, board.target, *board.names)).casefold()
                   for word in words)]


def verdict(catalogue: Catalogue, wish: ondemand.Request) -> Verdict:
    """Find out what an image would have. Our own images are checked as a build checks them, without building."""
    target = catalogue.target(wish.distro, wish.version, wish.target)
    distro = catalogue.distros[wish.distro]
    assert target is not None
    if found := packages.conflicts(target.packages, wish.packages):
        return Verdict(problems=found)
    if distro.builder != "images":
        return Verdict([(name, target.packages[name].version)
                        for name in packages.complete(target.packages, wish.packages)])
    with tempfile.TemporaryDirectory(prefix="verdict-") as place:
        task = Task(ondemand.digest(wish), wish, "", distro, target, catalogue.root, place, place)
        try:
            manifest = builders.builder(distro.builder).manifest(task, lambda text: None)
        except builders.Impossible as error:
            return Verdict(problems=error.reasons)
        except FussyError as error:
            return Verdict(problems=[str(error)])
    return Verdict(sorted(manifest.items()))
