"""Reading a document of plain data (YAML, JSON) so that every mistake in it is found, each with its path.

A Fields object stands for one mapping of the document. Its methods take fields out; what is wrong is noted in a list
that all Fields of the document share, and a harmless value is returned so that reading can go on.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping

Check = Callable[[str], str | None]


def plain(text: str) -> str | None:
    """Refuse control characters and what is no text in any language: they have no place in a name, key or value."""
    bad = any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in text)
    return "holds control characters" if bad else None


def not_empty(text: str) -> str | None:
    """Refuse the empty text."""
    return None if text else "empty"


def max_bytes(limit: int) -> Check:
    """Refuse texts that are longer in UTF-8."""
    return lambda text: f"longer than {limit} bytes" if len(text.encode("utf-8", "replace")) > limit else None


def matches(pattern: str, what: str) -> Check:
    """Refuse texts that the regular expression does not match as a whole; ``what`` says what is allowed."""
    compiled = re.compile(pattern)
    return lambda text: None if compiled.fullmatch(text) else f"must be {what}"


def one_of(*choices: str) -> Check:
    """Refuse all but some words."""
    return lambda text: None if text in choices else "must be one of " + ", ".join(choices)


def ip_address(text: str) -> str | None:
    """Refuse what is no IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "is not an IP address"
    return None


class Fields:
    """One mapping of a document, at a path, for example ``net.wifi``.

    After everything was taken, close() notes the fields that nobody knows.
    """

    def __init__(self, value: object, path: str, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        self._values: dict[str, object] = {}
        self._known: set[str] = set()
        if not isinstance(value, Mapping):
            if value is not None:
                mistakes.append(f"{path or 'descriptor'}: must be a mapping of names to values")
            return
        for key, item in value.items():
            if isinstance(key, str):
                self._values[key] = item
            else:
                mistakes.append(f"{self.at(str(key))}: the name must be text; put it in quotes")

    def at(self, key: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, what: str) -> None:
        """Note a mistake in a field."""
        self.mistakes.append(f"{self.at(key)}: {what}")

    def check_name(self, name: str, *checks: Check) -> None:
        """Note what is wrong with the name of the mapping itself, which is the end of its path."""
        if mistake := next(filter(None, (check(name) for check in checks)), None):
            self.mistakes.append(f"{self.path}: {mistake}")

    def get(self, key: str) -> object:
        """Return a field as it is, None if it is absent."""
        self._known.add(key)
        return self._values.get(key)

    def __contains__(self, key: str) -> bool:
        self._known.add(key)
        return self._values.get(key) is not None

    def spelled(self, *names: str) -> str:
        """Return which of several spellings of a field is used, the first if none; two at once are a mistake."""
        used = [name for name in names if name in self]
        self._known.update(names)
        for other in used[1:]:
            self.wrong(other, f"says the same as {used[0]}; keep one of them")
        return used[0] if used else names[0]

    def text(self, key: str, *checks: Check) -> str | None:
        """Return a field that is text, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(key, "must be text; put it in quotes")
            return None
        return value if self._passes(key, value, checks) else None

    def required(self, key: str, *checks: Check) -> str:
        """Return a field that must be there and text; the empty text if it is not."""
        if key not in self:
            self._known.add(key)
            self.wrong(key, "missing")
            return ""
        return self.text(key, *checks) or ""

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Return a field that is a whole number from low to high, also when written as text, or None."""
        value = self.get(key)
        if value is None:
            return None
        number = whole_number(value)
        if number is None or not low <= number <= high:
            self.wrong(key, f"must be a whole number from {low} to {high}")
            return None
        return number

    def fraction(self, key: str) -> float | None:
        """Return a field that is a number from 0 to 1, or None."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.wrong(key, "must be a number from 0 to 1")
            return None
        return float(value)

    def boolean(self, key: str) -> bool:
        """Return a field that is true or false; False if it is absent."""
        value = self.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
        return value is True

    def texts(self, key: str, *checks: Check) -> tuple[str, ...]:
        """Return a field that is a list of texts; one text counts as a list of one."""
        value = self.get(key)
        found = []
        for place, item in self._items(key, [value] if isinstance(value, str) else value):
            if not isinstance(item, str):
                self.wrong(place, "must be text; put it in quotes")
            elif self._passes(place, item, checks):
                found.append(item)
        return tuple(found)

    def fields(self, key: str) -> "Fields":
        """Return a field that is a mapping; an empty one if it is absent."""
        return Fields(self.get(key), self.at(key), self.mistakes)

    def mappings(self, key: str) -> Iterator["Fields"]:
        """Yield the items of a field that is a list of mappings."""
        for place, item in self._items(key, self.get(key)):
            yield Fields({} if item is None else item, self.at(place), self.mistakes)

    def each(self) -> Iterator[tuple[str, "Fields"]]:
        """Yield all fields, each of which must be a mapping."""
        for key in self._values:
            yield key, self.fields(key)

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields."""
        return tuple(self._values)

    def close(self) -> None:
        """Note the fields that nobody asked for."""
        for key in [key for key in self._values if key not in self._known]:
            near = difflib.get_close_matches(key, self._known, 1)
            self.wrong(key, f"unknown; is {near[0]} meant?" if near else
                       f"unknown; known here: {', '.join(sorted(self._known))}")

    def _items(self, key: str, value: object) -> Iterator[tuple[str, object]]:
        if isinstance(value, list | tuple):
            yield from ((f"{key}[{index}]", item) for index, item in enumerate(value))
        elif value is not None:
            self.wrong(key, "must be a list")

    def _passes(self, key: str, value: str, checks: tuple[Check, ...]) -> bool:
        for check in checks:
            if mistake := check(value):
                self.wrong(key, mistake)
                return False
        return True


def whole_number(value: object) -> int | None:
    """Return what is a whole number, also when written as text in decimal; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return None
