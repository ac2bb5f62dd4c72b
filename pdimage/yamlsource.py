"""Reads YAML so that each value's file and line stay known, and joins documents by inheritance.

Paths are written as :mod:`paradrop.lib.checks` does: ``platform.debian[2]``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pdimage.errors import Mistake

# Anchors can make a small file stand for an endless document.
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Place:
    """Where a value is written: line counts from 1."""

    file: Path
    line: int

    def mistake(self, path: str, text: str) -> Mistake:
        """Return a mistake that is here; PATH is the place in the document."""
        return Mistake(str(self.file), self.line, path, text)


@dataclass(frozen=True)
class Node:
    """A value with its place: a dict of nodes (by text or number), a list of nodes, or plain data."""

    value: Any
    place: Place


@dataclass(frozen=True)
class Document:
    """A node as plain data, with the place of each path in it."""

    data: Any
    places: dict[str, Place]

    def place(self, path: str) -> Place:
        """Return where PATH is written, or the nearest of its parents that is."""
        while path and path not in self.places:
            path = parent(path)
        return self.places[path]

    def mistake(self, path: str, text: str) -> Mistake:
        """Return a mistake at PATH."""
        return self.place(path).mistake(path, text)


def parent(path: str) -> str:
    """Return the path of what holds a path.

    >>> parent("chutes[0].path"), parent("chutes[0]"), parent("chutes")
    ('chutes[0]', 'chutes', '')
    """
    return path[:max(path.rfind("."), path.rfind("["), 0)]


def below(path: str, key: str | int) -> str:
    """Return the path of the item KEY of the mapping at PATH."""
    return f"{path}.{key}" if path else str(key)


def read(path: Path) -> tuple[Node, list[Mistake]]:
    """Read the YAML file PATH; what can't be understood is in the mistakes, and None in the node."""
    nothing = Node(None, Place(path, 1))
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return nothing, [Mistake(str(path), line, "", f"is not YAML: {error.problem or error.context}")]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return nothing, [Mistake(str(path), 0, "", f"is not YAML in UTF-8: {str(error).splitlines()[0]}")]
    except OSError as error:
        return nothing, [Mistake(str(path), 0, "", f"cannot be read: {error.strerror}; name a file that is there")]
    if root is None:
        return nothing, []
    reader = _Reader(path)
    return reader.node(root, "", root, ()), reader.mistakes


class _Reader:
    """Turns PyYAML's nodes into ours, and notes what is wrong."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []
        self._values = 0
        self._constructor = yaml.constructor.SafeConstructor()

    def node(self, node: yaml.Node, path: str, shown: yaml.Node, above: tuple[yaml.Node, ...]) -> Node:
        """Return NODE; its place is the line of SHOWN, which is its name in a mapping."""
        self._values += 1
        place = Place(self.file, shown.start_mark.line + 1)
        value: Any = None
        if node in above:
            self._wrong(node, path, "is an alias of what holds it; write it out")
        elif self._values > _MOST_VALUES:
            if self._values == _MOST_VALUES + 1:
                self._wrong(node, path, f"makes more than {_MOST_VALUES} values; use fewer aliases")
        elif isinstance(node, yaml.MappingNode):
            value = dict(self._items(node, path, (*above, node)))
        elif isinstance(node, yaml.SequenceNode):
            value = [self.node(item, f"{path}[{i}]", item, (*above, node)) for i, item in enumerate(node.value)]
        else:
            value = self._scalar(node, path)
        return Node(value, place)

    def _items(self, node: yaml.MappingNode, path: str, above: tuple[yaml.Node, ...]
               ) -> Iterator[tuple[str | int, Node]]:
        seen: dict[str | int, int] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str | int):
                self._wrong(key_node, path, "has a name that is not text; put it in quotes")
            elif key in seen:
                self._wrong(key_node, below(path, key), f"is there twice, first in line {seen[key]}; keep one of them")
            else:
                seen[key] = key_node.start_mark.line + 1
                yield key, self.node(value_node, below(path, key), key_node, above)

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._wrong(node, path, f"can't be used here: {getattr(error, 'problem', None) or error}")
            return None

    def _wrong(self, node: yaml.Node, path: str, text: str) -> None:
        self.mistakes.append(Mistake(str(self.file), node.start_mark.line + 1, path, text))


# Given the path of a list and an item, says what tells the item from others, as a value with a hash; None for a list
# that is replaced whole.
Identity = Callable[[str, Node], object]


def merge(base: Node, over: Node, identity: Identity, path: str = "") -> Node:
    """Return BASE with what OVER says: mappings are joined name by name, other values replaced.

    A list is added to the base's, unless IDENTITY gives None for its items; an item with the identity of one of the
    base's takes its place. ``null`` takes away what the base had.
    """
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        return Node({key: merge(base.value[key], over.value[key], identity, below(path, key))
                     if key in base.value and key in over.value else over.value.get(key) or base.value[key]
                     for key in dict.fromkeys([*base.value, *over.value])}, over.place)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return over if any(identity(path, item) is None for item in over.value) else Node(
            _joined(base.value, over.value, lambda item: identity(path, item)), over.place)
    return over


def _joined(base: list[Node], over: list[Node], identity: Callable[[Node], object]) -> list[Node]:
    """Return BASE with the items of OVER, each in the place of its namesakes if BASE has such, else at the end."""
    own: dict[object, list[Node]] = {}
    for item in over:
        own.setdefault(identity(item), []).append(item)
    kept = [same for item in base for same in own.pop(identity(item), [item])]
    return [*kept, *(item for items in own.values() for item in items)]


def document(root: Node) -> Document:
    """Return a node as plain data with the places of all paths."""
    places: dict[str, Place] = {}

    def plain(node: Node, path: str) -> Any:
        places[path] = node.place
        if isinstance(node.value, dict):
            return {key: plain(item, below(path, key)) for key, item in node.value.items()}
        if isinstance(node.value, list):
            return [plain(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return node.value

    return Document(plain(root, ""), places)


def texts(root: Node, change: Callable[[str, str, Place], str], path: str = "") -> Node:
    """Return a node with each text in it passed through CHANGE, which is given the text, its path and place."""
    if isinstance(root.value, dict):
        return Node({key: texts(item, change, below(path, key)) for key, item in root.value.items()}, root.place)
    if isinstance(root.value, list):
        return Node([texts(item, change, f"{path}[{i}]") for i, item in enumerate(root.value)], root.place)
    return Node(change(root.value, path, root.place), root.place) if isinstance(root.value, str) else root
