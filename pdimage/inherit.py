"""Finds what a description consists of: the files it inherits from, and what it says for one board."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pdimage.errors import Mistake
from pdimage.yamlsource import Node, Place, merge, read

# A chute's descriptor: the newer form goes before the one of 2015.
DESCRIPTORS = ("paradrop.yaml", "config.yaml")
# What only the top of a description can say.
_TOP_ONLY = ("base", "boards", "name")
# What tells the items of a list apart, empty for texts; lists that are not here are replaced as a whole.
_IDENTITIES: Mapping[str, str] = {
    "chutes": "name", "overlay": "", "templates": "target", "health": "name", "persistent": "", "platform.debian": "",
}


@dataclass
class Gathered:
    """A description with all it inherits. boards: names that it knows. mistakes: what is wrong so far."""

    root: Node
    sources: tuple[Path, ...] = ()
    boards: tuple[str, ...] = ()
    board: str | None = None
    mistakes: list[Mistake] = field(default_factory=list)


def gather(path: Path, board: str | None) -> Gathered:
    """Read the description at PATH, join it with those it is based on, and with what it says for BOARD.

    With one board in the description, that is the board; with several one must be chosen.
    """
    gathered = Gathered(Node({}, Place(path, 1)))
    root = _with_bases(path, (), gathered)
    gathered.root = Node({key: item for key, item in root.value.items() if key != "boards"}, root.place)
    boards = root.value.get("boards")
    if boards is None or not isinstance(boards.value, dict):
        if boards is not None and boards.value is not None:
            gathered.mistakes.append(boards.place.mistake("boards", "must be a mapping of names to what is different "
                                                          "for that board"))
        gathered.board = board
        return gathered
    gathered.boards = tuple(boards.value)
    gathered.board = board or (gathered.boards[0] if len(gathered.boards) == 1 else None)
    if gathered.board not in boards.value:
        known = ", ".join(gathered.boards)
        what = f"does not know {board!r}; choose one of {known}" if board else f"knows {known}; choose one with --board"
        gathered.mistakes.append(boards.place.mistake("boards", what))
        return gathered
    special = boards.value[gathered.board]
    where = f"boards.{gathered.board}"
    if not isinstance(special.value, dict):
        if special.value is not None:
            gathered.mistakes.append(special.place.mistake(where, "must be a mapping"))
        return gathered
    for key in set(_TOP_ONLY) & set(special.value):
        gathered.mistakes.append(special.value[key].place.mistake(f"{where}.{key}", "can only be said outside boards"))
    rest = {key: item for key, item in special.value.items() if key not in _TOP_ONLY}
    gathered.root = merge(gathered.root, Node(rest, special.place), _identity)
    return gathered


def _with_bases(path: Path, above: tuple[Path, ...], gathered: Gathered) -> Node:
    """Return the description at PATH joined with its bases; those ABOVE are based on it."""
    root, mistakes = read(path)
    gathered.mistakes += mistakes
    gathered.sources += (path.absolute(),)
    if not isinstance(root.value, dict):
        if not mistakes:
            gathered.mistakes.append(root.place.mistake("", "must be a mapping that begins with name and version"))
        return Node({}, root.place)
    base = root.value.get("base")
    own = Node({key: item for key, item in root.value.items() if key != "base"}, root.place)
    if base is None or base.value is None:
        return own
    if not isinstance(base.value, str):
        gathered.mistakes.append(base.place.mistake("base", "must be the path of another description"))
        return own
    other = resolve(base.place, base.value)
    chain = [*above, path]
    if other.resolve() in [one.resolve() for one in chain]:
        names = " -> ".join(one.name for one in [*chain, other])
        gathered.mistakes.append(base.place.mistake("base", f"goes round in a circle: {names}; remove one of them"))
        return own
    if not other.is_file():
        gathered.mistakes.append(base.place.mistake("base", f"{other} is not a file that is there; write a path "
                                                    "relative to this file"))
        return own
    return merge(_with_bases(other, tuple(chain), gathered), own, _identity)


def resolve(place: Place, text: str) -> Path:
    """Return the path that a description means by TEXT: relative to the file in which it is written."""
    return Path(place.file.parent.absolute(), text)


def _identity(path: str, item: Node) -> object:
    if path not in _IDENTITIES:
        return None
    if path == "chutes":
        return _chute_name(item) or id(item)
    if _IDENTITIES[path]:
        return _text(item, _IDENTITIES[path]) or id(item)
    return item.value if isinstance(item.value, str) else id(item)


def _chute_name(item: Node) -> str:
    """Return the name that a chute will have: as written, as in its descriptor, or as its directory or archive.

    Empty if that can't be told; the mistake is for the reader of the description to find.
    """
    path = _text(item, "path")
    place = path or _text(item, "archive")
    directory = resolve(item.place, path)
    descriptors = [directory / name for name in DESCRIPTORS if path and (directory / name).is_file()]
    config = read(descriptors[0])[0] if descriptors else _item(item, "config")
    return _text(item, "name") or _text(config, "name") or Path(place).name.partition(".")[0]


def _item(node: Node | None, key: str) -> Node | None:
    return node.value.get(key) if node and isinstance(node.value, dict) else None


def _text(node: Node | None, key: str) -> str:
    found = _item(node, key)
    return found.value if found and isinstance(found.value, str) else ""
