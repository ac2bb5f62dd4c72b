"""Reads Debian control data (deb822(5)) and the names in its relations."""

import re
from collections.abc import Iterator, Mapping

_FIELD = re.compile(r"^([!-9;-~]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_FIRST_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")


def paragraphs(text: str) -> Iterator[Mapping[str, str]]:
    r"""Yield each paragraph's fields, continued lines as they are.

    >>> list(paragraphs("Package: a\nVersion: 1\n\nPackage: b\nDescription: c\n d\n"))
    [{'Package': 'a', 'Version': '1'}, {'Package': 'b', 'Description': 'c\n d'}]
    """
    for paragraph in re.split(r"\n[ \t]*\n", text):
        if fields := dict(_FIELD.findall(paragraph)):
            yield fields


def names(relation: str) -> tuple[str, ...]:
    """Return the packages that a field such as Depends names, all alternatives, sorted.

    >>> names("libc6 (>= 2.34), awk | mawk:any")
    ('awk', 'libc6', 'mawk')
    """
    found = map(_FIRST_NAME.match, re.split(r"[,|]", relation))
    return tuple(sorted({match[1] for match in found if match}))
