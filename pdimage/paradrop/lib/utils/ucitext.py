"""The text of UCI files: reading and writing, nothing else.

The grammar is OpenWrt's (libuci's ``file.c`` and https://openwrt.org/docs/guide-user/base-system/uci)::

    config <type> [<name>] [#<comment>]
        option <key> '<value>'
        list <key> '<value>'

A word is a run of plain text, 'single' or "double" quoted parts, and characters after a backslash. Quoted parts may
hold line ends. ``#`` outside quotes starts a comment, ``;`` ends a statement. ``package`` lines say nothing that the
file's name does not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from paradrop.lib.errors import ParadropError

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+)
      | (?P<end>[\n;])
      | (?P<comment>\#[^\n]*)
      | (?P<single>'[^']*')
      | (?P<double>"(?:[^"\\]|\\.)*")
      | (?P<escape>\\.)
      | (?P<plain>[^ \t\r\f\v\n;#'"\\]+)""",
    re.VERBOSE | re.DOTALL)
_BLANKS = " \t\r\f\v"
# Sections as render() writes most of them, up to where the next one or a free comment begins, or the file ends. They
# are taken whole: a file differs little from one reading to the next, so most were read before.
_USUAL = re.compile(r"[ \t]*(option|list)[ \t]+(?!list[ \t])([A-Za-z0-9_.:@+-]+)[ \t]+'([^'\n]*)'\n")
_USUAL_TITLE = re.compile(
    r"config[ \t]+([A-Za-z0-9_.:@+-]+)(?:[ \t]+([A-Za-z0-9_.:@+-]+))?(?:[ \t]*#([^\n]*))?\n")
_USUAL_SECTION = re.compile(rf"{_USUAL_TITLE.pattern}(?:{_USUAL.pattern})*+\n*+(?=config[ \t]|#|\Z)")
_BARE = re.compile(r"[A-Za-z0-9_.:@+-]+")

Config = dict[str, str]
Options = dict[str, Any]
Section = tuple[Config, Options]


class Statement(NamedTuple):
    """One statement: the number of its first line, its words, the comment after it (None if there is none).

    Or a whole section as it is usually written; then there are no words.
    """

    line: int
    words: tuple[str, ...]
    comment: str | None
    section: Section | None = None


@dataclass
class Document:
    """The sections of a file in order, and its free comments.

    ``remarks[i]`` are the comment lines that stood before or in the section with index i; the index after the last
    section is for those at the end.
    """

    sections: list[Section] = field(default_factory=list)
    remarks: dict[int, list[str]] = field(default_factory=dict)


def parse(text: str, source: str = "UCI text") -> Document:
    """Read the text of a UCI file.

    Raises:
        ParadropError: with source and line, at the first thing that is no UCI.
    """
    document = _parse(text, source)
    return Document([_copied(section) for section in document.sections],
                    {index: list(remarks) for index, remarks in document.remarks.items()})


@lru_cache(maxsize=8)
def _parse(text: str, source: str) -> Document:
    """Return the document, which nobody may change. An update reads each of the four files several times."""
    if "\0" in text:
        raise ParadropError(f"cannot read {source}: it holds a NUL character")
    document = Document()
    for line, words, comment, section in _statements(text, source):
        if section:
            document.sections.append(section)
        elif words:
            _take(document, words, comment, f"{source}:{line}")
        elif comment is not None:
            document.remarks.setdefault(len(document.sections), []).append(comment)
    return document


def render(document: Document) -> str:
    """Write a document: options first, then lists, every value in single quotes.

    Whatever a value holds, quotes and line ends included, reading gives it back and nothing else.

    Raises:
        ParadropError: something holds a NUL character, a title or key is empty, or a comment is more than a line.
    """
    parts: list[str] = []
    for index, section in enumerate(document.sections):
        parts += _remarks(document, index)
        parts += _render_section(section)
    parts += _remarks(document, len(document.sections))
    return "".join(parts)


def quote(value: str) -> str:
    """Return a word that stands for a value, whatever characters that holds.

    >>> print(quote("it's"))
    'it'\\''s'
    """
    if "\0" in value:
        raise ParadropError(f"cannot write the value {value!r}: it holds a NUL character")
    return "'" + value.replace("'", "'\\''") + "'"


def _remarks(document: Document, index: int) -> Iterator[str]:
    for comment in document.remarks.get(index, []):
        yield f"#{comment}\n"


def _render_section(section: Section) -> Iterator[str]:
    config, options = section
    head = f"config {_title(config['type'])}"
    if "name" in config:
        head += f" {_title(config['name'])}"
    if "comment" in config:
        head += f" #{_comment(config['comment'])}"
    yield head + "\n"
    for key, value in options.items():
        if key != "list":
            yield f"\toption {_title(key)} {quote(value)}\n"
    for key, values in options.get("list", {}).items():
        for value in values:
            yield f"\tlist {_title(key)} {quote(value)}\n"
    yield "\n"


def _title(word: str) -> str:
    """Return a type, name or key as it is written."""
    if not word:
        raise ParadropError("cannot write an empty type, name or key")
    return word if _BARE.fullmatch(word) else quote(word)


def _comment(comment: str) -> str:
    if not comment or comment != comment.strip(_BLANKS) or {"\n", "\0"} & set(comment):
        raise ParadropError(f"cannot write the comment {comment!r}: it must be text on one line")
    return comment


def _copied(section: Section) -> Section:
    config, options = section[0].copy(), section[1].copy()
    if "list" in options:
        options["list"] = {key: values.copy() for key, values in options["list"].items()}
    return config, options


def _statements(text: str, source: str) -> Iterator[Statement]:
    """Cut text into statements. Lines count from 1."""
    position, line, start = 0, 1, 1
    words: list[str] = []
    word: str | None = None
    comment: str | None = None
    while position < len(text):
        if word is None and not words and (usual := _USUAL_SECTION.match(text, position)):
            yield Statement(line, (), None, _usual(usual.group()))
            position, line = usual.end(), line + usual.group().count("\n")
            start = line
            continue
        match = _TOKEN.match(text, position)
        if not match:
            raise ParadropError(f"cannot read {source}:{line}: {text[position]} without its end")
        kind, token = match.lastgroup, match.group()
        position = match.end()
        if kind in ("single", "double", "escape", "plain"):
            word = (word or "") + _meaning(str(kind), token)
        else:
            if word is not None:
                words.append(word)
                word = None
            if kind == "comment":
                comment = token[1:]
            elif kind == "end":
                yield Statement(start, tuple(words), comment)
                words, comment, start = [], None, line + (token == "\n")
        line += token.count("\n")
    yield Statement(start, tuple(words if word is None else [*words, word]), comment)


@lru_cache(maxsize=2048)
def _usual(text: str) -> Section:
    """Return the section that a text of the form _USUAL_SECTION holds. Nobody may change it."""
    title = _USUAL_TITLE.match(text)
    assert title
    options: Options = {}
    for keyword, key, value in _USUAL.findall(text, title.end()):
        _take_option(options, keyword, key, value)
    return _title_line([word for word in title.group(1, 2) if word], title[3]), options


def _meaning(kind: str, token: str) -> str:
    if kind == "single":
        return token[1:-1]
    if kind == "double":
        return re.sub(r"\\(.)", lambda found: found[1].replace("\n", ""), token[1:-1], flags=re.DOTALL)
    if kind == "escape":
        return token[1:].replace("\n", "")
    return token


def _take(document: Document, words: tuple[str, ...], comment: str | None, place: str) -> None:
    keyword, *rest = words
    if keyword == "package":
        return
    if keyword == "config" and 1 <= len(rest) <= 2 and rest[0]:
        document.sections.append((_title_line(rest, comment), {}))
    elif keyword in ("option", "list") and len(rest) == 2 and rest[0]:
        if not document.sections:
            raise ParadropError(f"cannot read {place}: {keyword} {rest[0]} comes before any section")
        if rest[0] == "list":
            raise ParadropError(f"cannot read {place}: an option cannot be called list")
        _take_option(document.sections[-1][1], keyword, *rest)
    else:
        raise ParadropError(f"cannot read {place}: {' '.join(words)!r} is neither config, option nor list "
                            "with its words; quote values that hold spaces")


def _title_line(words: list[str], comment: str | None) -> Config:
    config = {"type": words[0]}
    if len(words) == 2 and words[1]:
        config["name"] = words[1]
    if comment is not None and comment.strip(_BLANKS):
        config["comment"] = comment.strip(_BLANKS)
    return config


def _take_option(options: Options, keyword: str, key: str, value: str) -> None:
    """Take an option or a list item; as in libuci a list goes on where an option stood, and an option replaces a list.
    """
    lists: dict[str, list[str]] = options.get("list", {})
    if keyword == "option":
        lists.pop(key, None)
        if not lists:
            options.pop("list", None)
        options[key] = value
        return
    before = [options.pop(key)] if key in options else []
    options.setdefault("list", {}).setdefault(key, before).append(value)
