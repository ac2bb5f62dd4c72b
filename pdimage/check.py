"""``pdimage check``: everything that can be wrong with an image before anything is built, all at once."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fussy.errors import FussyError
from fussy.keys import list_keyring
from paradrop.lib import settings as runtime
from pdimage import buildable, conflicts, lock, templates
from pdimage.description import Image, Variables
from pdimage.errors import Mistake, Mistakes
from pdimage.reading import board_names, read_image


def check(path: Path, board: str | None = None, variables: Variables | None = None) -> Image:
    """Read the description at PATH for BOARD and look at all it names; return the image.

    :raises Mistakes: with all mistakes, of the description, of chutes' descriptors, templates and overlays
    """
    image, mistakes = read_image(path, board, variables or {})
    mistakes += problems(image)
    if mistakes:
        raise Mistakes(sorted(set(mistakes)))
    return image


def check_boards(path: Path, variables: Variables | None = None) -> list[Image]:
    """Check the description at PATH for each board that it knows.

    :raises Mistakes: with the mistakes of all boards
    """
    images: list[Image] = []
    mistakes: list[Mistake] = []
    for board in board_names(path) or (None,):
        try:
            images.append(check(path, board, variables))
        except Mistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise Mistakes(sorted(set(mistakes)))
    return images


def problems(image: Image) -> list[Mistake]:
    """Return what is wrong with the things an image names; the description itself was read already."""
    return [*_doubles(image), *buildable.problems(image), *conflicts.problems(image), *_templates(image),
            *_overlays(image), *_lock(image), *_keyring(image)]


def _doubles(image: Image) -> Iterator[Mistake]:
    """Yield chutes and templates that would be written to the same place."""
    chutes: dict[str, str] = {}
    for chute in image.chutes:
        if chute.name in chutes:
            yield chute.place.mistake(chute.where, f"is called {chute.name} as {chutes[chute.name]} is; give it a name")
        chutes.setdefault(chute.name, chute.where)
    targets: set[str] = set()
    for template in image.templates:
        if template.target in targets:
            yield template.place.mistake("templates", f"{template.target} is made twice; keep one of them")
        targets.add(template.target)


def _templates(image: Image) -> Iterator[Mistake]:
    for template in image.templates:
        try:
            templates.render_file(template.source, template_variables(image))
        except Mistakes as error:
            yield from error.mistakes


def template_variables(image: Image) -> Variables:
    """Return what templates can use: the description's variables, and ``image`` and ``board``."""
    facts = {"name": image.name, "version": image.version, "compatible": list(image.compatible),
             "chutes": [chute.name for chute in image.chutes]}
    return {**image.variables, "board": image.board or "", "image": facts}


@dataclass(frozen=True)
class OverlayFile:
    """A file of an overlay: where it is, and its path in the tree. Directories come before what they hold."""

    source: str
    target: str
    facts: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, and no link to one."""
        return stat.S_ISDIR(self.facts.st_mode)


def overlay_files(directory: Path) -> Iterator[OverlayFile]:
    """Yield what an overlay holds, in the order of names; what editors and version control keep there is not in it."""
    pending = [(os.fspath(directory), "")]
    while pending:
        here, prefix = pending.pop()
        for item in sorted(os.scandir(here), key=lambda item: item.name):
            if item.name in (".git", ".svn", ".bzr") or item.name.endswith("~"):
                continue
            found = OverlayFile(item.path, prefix + item.name, item.stat(follow_symlinks=False))
            yield found
            if found.is_directory:
                pending.append((item.path, f"{found.target}/"))


def _overlays(image: Image) -> Iterator[Mistake]:
    items = [item for directory in image.overlay for item in overlay_files(directory)]
    for item in items:
        if problem := _unusable(item):
            yield Mistake(item.source, 0, "", problem)
    targets = [(item.target, item.source) for item in items if not item.is_directory]
    targets += [(template.target, str(template.source)) for template in image.templates]
    yield from _state(image, targets)


def _state(image: Image, targets: Iterable[tuple[str, str]]) -> Iterator[Mistake]:
    """Yield files that would be linked over what lasts on the router, such as what its owner has set."""
    uci = image.settings.get("UCI_CONFIG_DIR", runtime.UCI_CONFIG_DIR)
    kept = [Path(path) for path in (uci, *image.persistent)]
    for target, source in targets:
        if not target.startswith("etc/"):
            continue
        place = Path("/", target)
        for path in kept:
            if place.is_relative_to(path):
                yield Mistake(source, 0, "", f"would take the place of {place}, but {path} is the router's own and "
                              "lasts through upgrades; let a hook write it where it is missing")


def _unusable(item: OverlayFile) -> str:
    """Return why a file of an overlay can't go into the tree, or an empty text."""
    if item.target.split("/")[0] == ".fussy" and not stat.S_ISDIR(item.facts.st_mode):
        return "lies below .fussy, which describes the release; put it elsewhere"
    if stat.S_ISLNK(item.facts.st_mode):
        target = os.readlink(item.source)
        inside = os.path.normpath(os.path.join("/tree", os.path.dirname(item.target), target))
        if not target.startswith("/") and not Path(inside).is_relative_to("/tree"):
            return f"is a link that leads out of the tree, to {target}; write a full path if the router's own is meant"
    elif not stat.S_ISREG(item.facts.st_mode) and not stat.S_ISDIR(item.facts.st_mode):
        return "is neither a file nor a directory nor a symbolic link; a firmware can't carry it"
    return ""


def _lock(image: Image) -> Iterator[Mistake]:
    """Yield what is wrong with the lock as it is written; what its packages are is seen when they are fetched."""
    if image.platform.requirements:
        try:
            lock.read(image.platform.requirements, image.machine.environment())
        except Mistakes as error:
            yield from error.mistakes


def _keyring(image: Image) -> Iterator[Mistake]:
    """Yield why no device should get the image's keyring; whoever holds a device can read all of it."""
    if image.keys is None:
        return
    try:
        entries = list_keyring(image.keys)
    except FussyError as error:
        yield Mistake(str(image.keys), 0, "", str(error))
        return
    for entry in entries:
        if entry.may_sign and entry.secret:
            yield Mistake(str(image.keys), 0, "", f"holds the secret half of {entry.key.fingerprint}, which may sign "
                          "bundles; make a device's keyring with `fussy keys keyring`")
