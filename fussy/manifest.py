"""The manifest: what a bundle says of itself, and of every file in it (DESIGN "Bundle").

It is the first member of the tar, ``NAME/.fussy/manifest.json``, and stays in the release. JSON (RFC 8259), UTF-8::

    {"format": 1, "name": "firmware-7", "version": "7.0", "compatible": ["board-a"], ...,
     "entries": [{"path": "bin/app", "type": "file", "mode": 493, "size": 5, "sha256": "…"}, ...]}

Paths are relative to the release, with ``/`` between names. A path (or a link's target) that is not UTF-8 is written
percent-encoded (RFC 3986) in ``raw_path`` (``raw_target``) instead. :func:`decode` refuses whatever could make an
installer write outside the release or through a link, so that the rest of the program need not think of it again.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b, file_digest, sha256
from pathlib import Path
from typing import Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from fussy.errors import BadBundle

FORMAT = 1
DIRECTORY = b".fussy"
PATH = b".fussy/manifest.json"
DESCRIPTION = b".fussy/release.json"
# A manifest of this size describes about 400,000 files.
MAX_SIZE = 64 * 1024 * 1024

Type = Literal["directory", "file", "hardlink", "symlink", "fifo", "character", "block"]
_DEVICES = ("character", "block")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# One name of a path, but not "." or "..".
_COMPONENT = rb"(?!\.{1,2}(?:/|\Z))[^/\0]{1,255}"
_SAFE_PATH = re.compile(rb"%b(?:/%b)*" % (_COMPONENT, _COMPONENT))
_LONGEST_PATH = 4000
# How the first line ends when each entry has a line of its own.
_ENTRIES_FOLLOW = b'"entries":[\n'
# What a release may be called: one path component that no shell, tar or glob takes for something else.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~:@ -]{0,199}")
RESERVED_NAMES = frozenset({"current", "current~", "failsafe", "previous"})


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One file of a release. ``mode`` holds the permission bits (0o7777); ``mtime`` is whole seconds of Unix time."""

    type: Type
    path: str = ""
    raw_path: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    sha256: str = ""
    target: str = ""
    raw_target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, str] = {}

    @property
    def name(self) -> bytes:
        """The path as the file system has it; ``b"."`` is the top directory."""
        return unquote_to_bytes(self.raw_path) if self.raw_path else self.path.encode()

    @property
    def link(self) -> bytes:
        """Where a symbolic or hard link points; a hard link's target is a path in the release."""
        return unquote_to_bytes(self.raw_target) if self.raw_target else self.target.encode()

    def attributes(self) -> dict[str, bytes]:
        """The extended attributes (xattr(7)), values decoded."""
        return {name: unquote_to_bytes(value) for name, value in self.xattrs.items()}

    def identity(self) -> bytes:
        """A digest of all that two hard-linked files share: content, mode, owner, extended attributes."""
        text = f"{self.sha256} {self.size} {self.mode} {self.uid} {self.gid} {sorted(self.xattrs.items())}"
        return blake2b(text.encode(), digest_size=16).digest()

    @property
    def data_size(self) -> int:
        """Bytes that the tar holds for this entry (without padding)."""
        return self.size if self.type == "file" else 0


def quoted(attributes: Mapping[str, bytes]) -> dict[str, str]:
    """Return extended attributes as an entry has them: sorted by name, values percent-encoded."""
    return {name: quote_from_bytes(value, safe="") for name, value in sorted(attributes.items())}


def spell(raw: bytes) -> tuple[str, str]:
    """Return (text, percent-encoded text) for a path or target, one of them empty.

    >>> spell(b"bin/app"), spell(bytes([0xff]))
    (('bin/app', ''), ('', '%FF'))
    """
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        return "", quote_from_bytes(raw)


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One health check, of one kind (see fussy.health): tried again until it passes or ``seconds`` are over.

    ``command``: an argument list, run in the release. ``http``: an address that must answer 2xx or 3xx. ``unit``: a
    systemd unit that must be active. ``dhcp``: a network interface on which a DHCP server must answer. ``dns``: a name
    that must resolve, ``NAME`` or ``NAME@SERVER``. ``tcp``: ``HOST:PORT`` that must accept a connection. ``route``:
    what ``ip route get`` must find a way for, such as ``9.9.9.9 from 192.168.1.77 iif br-lan``. ``nat``: what a client
    behind the router must get a connection to, such as ``9.9.9.9:53 from 192.168.1.77 iif br-lan``. ``lines``: a
    command each of whose lines before the swap must be among its lines after it.
    ``contains``: text that a command's output or a page must show. ``kept``: it must pass after the swap only if it
    passed before it, too.
    """

    name: str
    command: list[str] = []
    http: str = ""
    contains: str = ""
    seconds: float = 30.0
    unit: str = ""
    dhcp: str = ""
    dns: str = ""
    tcp: str = ""
    route: str = ""
    nat: str = ""
    lines: list[str] = []
    kept: bool = False


KINDS = ("command", "http", "unit", "dhcp", "dns", "tcp", "route", "nat", "lines")


def check_problem(check: Check) -> str:
    """Return why CHECK can't be carried out, or an empty text.

    >>> check_problem(Check("page", http="http://127.0.0.1/"))
    ''
    >>> check_problem(Check("page"))
    "health check 'page' needs one of command, http, unit, dhcp, dns, tcp, route, nat, lines"
    """
    if sum(bool(getattr(check, kind)) for kind in KINDS) != 1:
        return f"health check {check.name!r} needs one of {', '.join(KINDS)}"
    return ""


Confirm = Literal["checks", "boot", "hand"]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a release counts as good.

    ``confirm``: ``checks``: as soon as hooks and checks have passed. ``boot``: when they have, and the checks pass
    again after the device has booted. ``hand``: when somebody says so (``fussy confirm``).
    ``seconds``: how long the device may run with it until then. ``boots``: how often it may boot until then; at the
    boot after these it is taken back. ``watchdog``: the watchdog device that is held meanwhile (see fussy.watchdog).
    """

    confirm: Confirm = "checks"
    seconds: float = 3600.0
    boots: int = 2
    watchdog: str = ""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Time limits of the hooks, in seconds."""

    pre_install: float = 300.0
    post_install: float = 300.0


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a release says of itself; ``.fussy/release.json`` in a tree to be packed has these fields.

    ``compatible``: boards it is for (empty: any). ``installer``: lowest version of fussy that may install it.
    ``upgrade_from``: lowest version of the current release from which one may come. ``floor``: once this release is
    in use, versions below it are refused. ``devices``: whether it may hold device nodes. ``metadata``: free, for hooks.
    """

    version: str = ""
    compatible: list[str] = []
    installer: str = ""
    upgrade_from: str = ""
    floor: str = ""
    devices: bool = False
    limits: Limits = Limits()
    health: list[Check] = []
    trial: Trial = Trial()
    metadata: dict[str, str | int | float | bool | None] = {}


class Manifest(Description, frozen=True, kw_only=True, dict=True):
    """A description with the name of the release and its entries, in the order of the tar's members."""

    format: int = FORMAT
    name: str
    entries: list[Entry]

    @cached_property
    def index(self) -> dict[bytes, int]:
        """Position of each entry by its path."""
        return {entry.name: i for i, entry in enumerate(self.entries)}


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, one entry a line."""
    head = msgspec.json.encode(msgspec.structs.replace(manifest, entries=[]))
    assert head.endswith(b'"entries":[]}')
    lines = b",\n".join(map(msgspec.json.Encoder().encode, manifest.entries))
    # format has a default and would be omitted, but a reader must see it first
    return b'{"format":%d,' % manifest.format + head[1:-2] + b"\n" + lines + b"\n]}\n"


def decode(data: bytes | bytearray) -> Manifest:
    """Read and check a manifest.

    :raises BadBundle: it is not JSON of this format, or describes something unsafe. All that is wrong with the
        entries is found, the first five are told.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBundle(f"cannot read the manifest: {error}; pack the firmware again") from error
    if manifest.format != FORMAT:
        raise BadBundle(f"cannot read the manifest: it has format {manifest.format}, this fussy reads {FORMAT}; "
                        "install a newer fussy first")
    checker = Checker(devices=manifest.devices)
    wrong = [*check_name(manifest.name), *checker.problems(manifest.entries)]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise BadBundle(f"cannot accept the manifest: {'; '.join(wrong[:5])}{more}; pack the firmware again")
    # a second one would be 2 MB for 16,000 entries
    manifest.__dict__["index"] = checker.index
    return manifest


def stored_description(path: Path) -> Description:
    """Return the description of an installed release from its manifest at PATH, without reading the entries if it can.

    :raises BadBundle: it is no manifest
    :raises OSError: it can't be read
    """
    with path.open("rb") as file:
        head = file.readline()
        if not head.endswith(_ENTRIES_FOLLOW):
            return decode(head + file.read())
    return decode(head + b"]}")


def stored_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of an installed release from its manifest at PATH.

    One by one if the manifest has a line for each, as :func:`encode` writes it, for a router has little memory.

    :raises BadBundle: it is no manifest
    :raises OSError: it can't be read
    """
    with path.open("rb") as file:
        head = file.readline()
        if not head.endswith(_ENTRIES_FOLLOW):
            yield from decode(head + file.read()).entries
            return
        decoder = msgspec.json.Decoder(Entry)
        for line in file:
            if line.strip() == b"]}":
                return
            try:
                yield decoder.decode(line.rstrip(b",\n"))
            except msgspec.MsgspecError as error:
                raise BadBundle(f"cannot read {path}: {error}") from error
    raise BadBundle(f"cannot read {path}: it ends too early")


def decode_description(data: bytes) -> Description:
    """Read ``.fussy/release.json``; see :class:`Description`.

    :raises BadBundle: it is not valid; the message has the path of the field.
    """
    try:
        described = msgspec.json.decode(data, type=Description)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBundle(f"cannot read {DESCRIPTION.decode()}: {error}") from error
    if wrong := [problem for check in described.health if (problem := check_problem(check))]:
        raise BadBundle(f"cannot read {DESCRIPTION.decode()}: {'; '.join(wrong)}")
    return described


def digest(data: bytes | bytearray) -> str:
    """Return what names a bundle by its content: the SHA-256 of its manifest, in hex."""
    return sha256(data).hexdigest()


def release_digest(release: Path) -> str:
    """Return the digest of the release in a directory, "" if its manifest can't be read; see :func:`digest`."""
    try:
        return stored_digest(release / os.fsdecode(PATH))
    except OSError:
        return ""


def stored_digest(path: Path) -> str:
    """Return the digest of an installed release, from its manifest at PATH; see :func:`digest`.

    :raises OSError: it can't be read
    """
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_name(name: str) -> list[str]:
    """Return what is wrong with NAME as the name of a release."""
    if not _NAME.fullmatch(name) or name != name.strip() or name in RESERVED_NAMES:
        return [f"{name!r} cannot be the name of a release: use letters, digits and . _ + ~ : @ - (at most 200), "
                f"not {', '.join(sorted(RESERVED_NAMES))}"]
    return []


def unsafe_path(path: bytes) -> str:
    """Return why PATH must not be written below a release, or an empty text."""
    if len(path) <= _LONGEST_PATH and _SAFE_PATH.fullmatch(path):
        return ""
    if not path or b"\0" in path:
        return "is empty or has a NUL byte"
    if path.startswith(b"/"):
        return "is absolute"
    parts = path.split(b"/")
    if b".." in parts:
        return "leads out of the release"
    if b"" in parts or b"." in parts:
        return "is not in its shortest form"
    return "is too long"


def usable_attribute(name: str) -> bool:
    """Whether an extended attribute can have this name (xattr(7)) and a manifest can hold it."""
    try:
        return 0 < len(name.encode()) <= 255 and "\0" not in name
    except UnicodeEncodeError:
        return False


class Checker:
    """Judges the entries of a release one after the other: paths, order, links, sizes, doubles.

    A parent must come before its children and be a directory, so nothing is ever written through a link; a hard link
    names an earlier regular file of the same release. ``index``: the position of each entry by its path.
    """

    def __init__(self, *, devices: bool) -> None:
        self._devices = devices
        self._kinds: list[Type] = []
        self.index: dict[bytes, int] = {}

    def problems(self, entries: Sequence[Entry]) -> list[str]:
        """Return all that is wrong with ENTRIES; an empty list means safe to write."""
        return [f"{entry.name.decode(errors='backslashreplace')!r}: {problem}"
                for entry in entries if (problem := self.problem(entry))]

    def problem(self, entry: Entry) -> str:
        """Return what is wrong with the next entry, or an empty text."""
        path = entry.name
        if not self._kinds and path == b"." and entry.type == "directory":
            problem = self._wrong_facts(entry)
        else:
            problem = self._wrong_path(path) or self._wrong_facts(entry)
        if path == DIRECTORY and entry.type != "directory":
            problem = "not a directory, where the manifest must go"
        self.index.setdefault(path, len(self._kinds))
        self._kinds.append(entry.type)
        return problem

    def _kind(self, path: bytes) -> Type | None:
        """Return the type of an earlier entry; the top directory need not be one."""
        index = self.index.get(path)
        return self._kinds[index] if index is not None else "directory" if path == b"." else None

    def _wrong_path(self, path: bytes) -> str:
        if problem := unsafe_path(path):
            return f"the path {problem}"
        if path in self.index or path == b".":
            return "there twice"
        if path == PATH:
            return "the manifest does not list itself"
        if self._kind(path.rpartition(b"/")[0] or b".") != "directory":
            return "its parent is not a directory listed before it"
        return ""

    def _wrong_facts(self, entry: Entry) -> str:
        # the greatest number is no owner: chown(2) takes it for "leave as it is"
        owned = 0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1
        if not owned or not 0 <= entry.size < 2**63 or not 0 <= entry.mode <= 0o7777:
            return "size, mode or owner out of range"
        if not -(2**62) < entry.mtime < 2**62:
            return "time out of range"
        if entry.type == "file" and not _SHA256.fullmatch(entry.sha256):
            return "no SHA-256"
        if entry.type == "hardlink" and self._kind(entry.link) != "file":
            return "a hard link to something that is not an earlier file of the release"
        if entry.type == "symlink" and (not entry.link or b"\0" in entry.link):
            return "a symbolic link without a usable target"
        if entry.type in _DEVICES and not self._devices:
            return "a device node, which the manifest does not allow"
        if entry.type in _DEVICES and not (0 <= entry.device[0] < 2**12 and 0 <= entry.device[1] < 2**20):
            return "device numbers out of range"
        if not all(map(usable_attribute, entry.xattrs)):
            return "an extended attribute without a usable name"
        return ""


def total_size(entries: Iterable[Entry]) -> int:
    """Return the bytes of all files' contents."""
    return sum(entry.data_size for entry in entries)
