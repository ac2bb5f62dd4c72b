"""Which names may reach a path, a command, a header or a description: an allow-list for each kind.

Nothing else is quoted or escaped anywhere behind this module, so nothing else may come in. ``re.fullmatch`` is used,
for ``$`` would let a newline pass.
"""

import re
from collections.abc import Callable, Mapping

_PATTERNS: Mapping[str, str] = {
    "distro": r"[a-z0-9][a-z0-9-]{0,31}",
    "version": r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}",
    "target": r"[a-z0-9][a-z0-9_-]{0,31}/[a-z0-9][a-z0-9_-]{0,31}",
    "profile": r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}",
    "package": r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}",
    "package version": r"[0-9A-Za-z][0-9A-Za-z.+~:_-]{0,99}",
    "filesystem": r"[a-z0-9]{1,16}",
    "hash": r"[0-9a-f]{64}",
    "account": r"[A-Za-z0-9]{3,32}",
    "router": r"[A-Za-z0-9]{3,32}",
    "pdid": r"pd\.[A-Za-z0-9]{3,32}\.[A-Za-z0-9]{3,32}",
    "group": r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}",
    "token": r"[0-9a-f]{16}",
    "file": r"[A-Za-z0-9_][A-Za-z0-9._+~@-]{0,199}",
}
_COMPILED = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}


def pattern(kind: str) -> str:
    """Return the regular expression for a kind of name, for the API's description."""
    return f"^{_PATTERNS[kind]}$"


def is_good(kind: str, text: str) -> bool:
    """Tell whether TEXT may be the name of such a thing.

    >>> is_good("package", "hello-world"), is_good("package", "$(reboot)"), is_good("package", "a\\n")
    (True, False, False)
    """
    return _COMPILED[kind].fullmatch(text) is not None


def check(kind: str, text: str, wrong: Callable[[str], Exception]) -> str:
    """Return TEXT if it may be such a name, otherwise raise what WRONG makes of a sentence about it."""
    if not is_good(kind, text):
        raise wrong(f"{shown(text)} is no {kind}")
    return text


def shown(text: str) -> str:
    """Return foreign text for a message: printable, in quotes, at most 60 characters."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
