"""Reads which licences a Debian copyright file names (Debian Policy 12.5, and its machine-readable format 1.0)."""

import re
from collections.abc import Iterator
from pathlib import Path

_FORMAT = re.compile(r"^Format:\s*https?://\S*copyright-format", re.MULTILINE)
_FIELD = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])")
_VERSIONED = re.compile(r"(A?GPL|LGPL|GFDL)-(\d)(?:\.(\d))?(\+?)")
# Debian's short names where they differ from SPDX's.
_SPDX = {"Expat": "MIT", "BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "BSD-4-clause": "BSD-4-Clause",
         "ZLIB": "Zlib", "zlib": "Zlib", "Artistic": "Artistic-1.0-Perl"}


def read(file: Path) -> Iterator[str]:
    """Yield the licences that FILE names; see :func:`parse`."""
    return parse(file.read_text(errors="replace"))


def parse(text: str) -> Iterator[str]:
    """Yield the licences that a copyright file names, once each, as SPDX writes them where that is known.

    A file in free form counts for the common licences that it points to, in Debian's words: whether later versions
    are allowed only its text says.
    """
    if _FORMAT.search(text):
        yield from dict.fromkeys(spdx(name.strip()) for name in _FIELD.findall(text))
    else:
        yield from dict.fromkeys(_COMMON.findall(text))


def spdx(name: str) -> str:
    """Return SPDX's spelling of Debian's short name; several joined by and, or, with are translated one by one.

    >>> spdx("GPL-2+ or Expat"), spdx("LGPL-2.1"), spdx("public-domain")
    ('GPL-2.0-or-later OR MIT', 'LGPL-2.1-only', 'public-domain')
    """
    words = name.replace(",", " ").split()
    if any(word.lower() in ("and", "or") for word in words):
        return " ".join(word.upper() if word.lower() in ("and", "or", "with") else _one(word) for word in words)
    return _one(name)


def _one(name: str) -> str:
    if found := _VERSIONED.fullmatch(name):
        family, major, minor, later = found.groups()
        return f"{family}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
    return _SPDX.get(name, name)
