"""Members of a tar archive: written reproducibly (POSIX.1-2001 pax), read as if an enemy had made them.

Contents never pass through here as a whole: :func:`head` gives the blocks that stand before a member's data, and
:func:`members` yields each member with an iterator over its data. Extended attributes travel as GNU tar writes them
with ``--xattrs``, in the pax records ``SCHILY.xattr.NAME``.
"""

import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from fussy import manifest
from fussy.errors import BadBundle

BLOCK = 512
END = bytes(2 * BLOCK)
# Long names, times and attributes of one member; capabilities need 24 bytes, a name at most 4,096.
_MAX_PAX = 1 << 20
_XATTR = "SCHILY.xattr."
# The fields of a ustar header (POSIX.1-1988): name, mode, uid, gid, size, mtime, checksum, type, link name, magic,
# version, user, group, device numbers, prefix.
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")

_TYPES: dict[manifest.Type, bytes] = {
    "directory": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "hardlink": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE, "character": tarfile.CHRTYPE, "block": tarfile.BLKTYPE,
}
_KINDS = {code: kind for kind, code in _TYPES.items()} | {tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file"}


def head(top: str, entry: manifest.Entry) -> bytes:
    """Return the header blocks of ENTRY in an archive whose only top directory is TOP. Same entry, same bytes."""
    if plain := _ustar(top, entry):
        return plain
    info = tarfile.TarInfo(_text(top, entry.name))
    info.type = _TYPES[entry.type]
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    info.size = entry.data_size
    if entry.type == "hardlink":
        info.linkname = _text(top, entry.link)
    elif entry.type == "symlink":
        info.linkname = entry.link.decode("utf-8", "surrogateescape")
    info.devmajor, info.devminor = entry.device
    info.pax_headers = {_keyword(name): value.decode("utf-8", "surrogateescape")
                        for name, value in sorted(entry.attributes().items())}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _ustar(top: str, entry: manifest.Entry) -> bytes:
    """Return the header of a member that POSIX.1-1988 ustar can describe, or nothing; ten times as fast as tarfile."""
    name, link = f"{top}/{entry.path}", entry.target
    if entry.type == "hardlink":
        link = f"{top}/{link}"
    fits = (len(name) <= 100 and len(link) <= 100 and name.isascii() and link.isascii()
            and max(entry.uid, entry.gid) <= 0o7777777 and max(entry.size, entry.mtime) <= 0o77777777777
            and entry.mtime >= 0)
    other = entry.raw_path or entry.raw_target or entry.xattrs or entry.type not in ("file", "hardlink", "symlink")
    if other or not fits:
        return b""
    fields = [name.encode(), b"%07o" % entry.mode, b"%07o" % entry.uid, b"%07o" % entry.gid,
              b"%011o" % entry.data_size, b"%011o" % entry.mtime, b" " * 8, _TYPES[entry.type], link.encode(),
              b"ustar", b"00", b"", b"", b"", b"", b""]
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)


def _keyword(attribute: str) -> str:
    """Return the pax keyword of an extended attribute; a keyword ends at ``=``, so GNU tar writes that as ``%3D``."""
    return _XATTR + attribute.replace("%", "%25").replace("=", "%3D")


def _attribute(keyword: str) -> str:
    return keyword.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%")


def _text(top: str, path: bytes) -> str:
    return top if path == b"." else f"{top}/{path.decode('utf-8', 'surrogateescape')}"


def padding(size: int) -> bytes:
    """Return the zero bytes that follow SIZE bytes of data."""
    return bytes(-size % BLOCK)


@dataclass
class Member:
    """One member as the archive has it, names not yet judged; ``name`` and ``link`` as bytes, without a final slash."""

    kind: manifest.Type
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    device: tuple[int, int]
    xattrs: dict[str, bytes] = field(default_factory=dict)
    # Blocks of the member's data; what is not taken is passed over before the next member.
    data: Iterator[bytes | memoryview] = field(default_factory=lambda: iter(()))


def members(blocks: Iterator[bytes]) -> Iterator[Member]:
    """Yield the members of an archive that comes in BLOCKS of any size: ustar, GNU and pax headers.

    :raises BadBundle: not a tar archive, damaged, cut short, or with a kind of member that firmware has no use for
        (sparse files, volume labels).
    """
    reader = _Reader(blocks)
    pax: dict[str, bytes] = {}
    for info in reader.headers():
        if info.type == tarfile.XHDTYPE:
            pax = _pax_records(reader.small(info.size))
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            pax["path"] = reader.small(info.size).rstrip(b"\0")
        elif info.type == tarfile.GNUTYPE_LONGLINK:
            pax["linkpath"] = reader.small(info.size).rstrip(b"\0")
        elif info.type == tarfile.XGLTYPE:
            reader.small(info.size)  # git archive's comment; nothing in it changes a member
        else:
            member = _member(info, pax)
            pax = {}
            member.data = reader.data(member.size)
            yield member
            for _ in member.data:
                pass


def _member(info: tarfile.TarInfo, pax: dict[str, bytes]) -> Member:
    """Return the member that a header and its pax records describe."""
    kind = _KINDS.get(info.type)
    if kind is None or any(name.startswith("GNU.sparse") for name in pax):
        raise BadBundle(f"cannot unpack {info.name!r}: a tar member of type {info.type!r}, which is neither file, "
                        "directory nor link; pack it again without sparse files and labels")
    try:
        numbers = {name: int(float(pax[name])) for name in ("size", "uid", "gid", "mtime") if name in pax}
    except (ValueError, OverflowError) as error:
        raise BadBundle(f"cannot unpack {info.name!r}: a pax record is not a number; pack it again") from error
    name = pax.get("path", info.name.encode("utf-8", "surrogateescape"))
    return Member(
        kind=kind,
        name=name.rstrip(b"/") or name[:1],
        link=pax.get("linkpath", info.linkname.encode("utf-8", "surrogateescape")),
        mode=info.mode & 0o7777, uid=numbers.get("uid", info.uid), gid=numbers.get("gid", info.gid),
        mtime=numbers.get("mtime", int(info.mtime)),
        size=numbers.get("size", info.size) if kind == "file" else 0,
        device=(info.devmajor, info.devminor),
        xattrs={_attribute(key): value for key, value in pax.items() if key.startswith(_XATTR)},
    )


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Read ``LENGTH KEY=VALUE\\n`` records (pax(1), "Extended Header")."""
    records = {}
    while data:
        digits, _, rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = data[len(digits) + 1:length]
        key, equals, value = record.partition(b"=")
        if not rest or not equals or not value.endswith(b"\n") or length > len(data):
            raise BadBundle("cannot unpack the bundle: a damaged pax header; pack it again")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1]
        data = data[length:]
    return records


class _Reader:
    """Headers and data of an archive out of blocks of any size."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def _some(self, most: int) -> memoryview:
        """Return between 1 and MOST bytes, or nothing at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        some, self._rest = self._rest[:most], self._rest[most:]
        return some

    def _exactly(self, size: int, *, end: bool = False) -> bytes:
        parts = []
        while size and (some := self._some(size)):
            parts.append(some)
            size -= len(some)
        if size and not (end and not parts):
            raise BadBundle("cannot unpack the bundle: the archive ends too early; pack or download it again")
        return b"".join(parts)

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """Yield headers up to the end-of-archive block; the caller takes each one's data before the next."""
        while block := self._exactly(BLOCK, end=True):
            if not any(block):
                for _ in self._blocks:  # padding to the record size; and what is verified is read to its end
                    pass
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise BadBundle(f"cannot unpack the bundle: not a tar archive ({error}); pack it again") from error
            if info.size < 0:
                raise BadBundle(f"cannot unpack {info.name!r}: negative size; pack it again")
            yield info
        raise BadBundle("cannot unpack the bundle: the archive has no end; pack or download it again")

    def small(self, size: int) -> bytes:
        """Return the data of a header that describes the next member."""
        if size > _MAX_PAX:
            raise BadBundle(f"cannot unpack the bundle: a header of {size} bytes; pack it again")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def data(self, size: int) -> Iterator[memoryview]:
        """Yield a member's data in blocks, then pass over its padding."""
        pad = -size % BLOCK
        while size:
            some = self._some(size)
            if not some:
                raise BadBundle("cannot unpack the bundle: the archive ends too early; pack or download it again")
            size -= len(some)
            yield some
        self._exactly(pad)


