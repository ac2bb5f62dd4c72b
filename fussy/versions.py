"""Order of version strings, as dpkg orders upstream versions (deb-version(7)).

Digits compare as numbers; letters sort before everything else but the end; ``~`` sorts before even the end, so that
``2.0~rc1`` comes before ``2.0``.

>>> sorted(["1.10", "1.9", "1.9-1", "2.0", "2.0~rc1"], key=key)
['1.9', '1.9-1', '1.10', '2.0~rc1', '2.0']
"""

import re

# One run of non-digits (possibly empty) and the number that follows it.
_PART = re.compile(r"([^0-9]*)([0-9]*)")

# A number as (count of digits, digits), which sorts as its value does, however long it is.
Number = tuple[int, str]


def key(version: str) -> tuple[tuple[tuple[int, ...], Number], ...]:
    """Return a value that sorts as VERSION does. Any text is a version."""
    parts = [part for part in _PART.findall(version) if part != ("", "")]
    # The empty last part makes the end of one version comparable with the text that goes on in another.
    return tuple(((*map(_weight, text), 0), _number(digits)) for text, digits in [*parts, ("", "")])


def _number(digits: str) -> Number:
    significant = digits.lstrip("0")
    return len(significant), significant


def _weight(character: str) -> int:
    """Return the sort weight of a non-digit: ``~`` below the end (0), letters below other characters."""
    if character == "~":
        return -1
    return ord(character) if character.isascii() and character.isalpha() else ord(character) + 0x100
