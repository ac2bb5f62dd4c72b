"""Times in layers: whatever a tar archive holds, only its times change."""

import io
import tarfile

import hypothesis
import hypothesis.strategies as some
import pytest

from pdimage.layertimes import settle

_names = some.text(some.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=150).filter(
    lambda name: name not in (".", ".."))
_members = some.lists(some.tuples(
    _names, some.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    some.binary(max_size=1500), some.one_of(some.integers(-5, 2**35), some.floats(0, 2e9)), some.integers(0, 2**40),
    some.booleans()), max_size=6)


def archive(members: list[tuple[str, bytes, bytes, float, int, bool]], form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, kind, content, mtime, uid, attribute in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mtime, entry.uid, entry.mode = kind, mtime, uid, 0o4755
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = f"{name}/target"
            if form == tarfile.PAX_FORMAT and attribute:
                entry.pax_headers = {"SCHILY.xattr.user.a": "b\udcff=\n", "atime": "1700000000.5"}
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def listing(content: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(one.name, one.type, one.mode, one.uid, one.linkname, one.size,
                 {key: value for key, value in one.pax_headers.items() if not key.endswith("time")},
                 (file := tar.extractfile(one) if one.isreg() else None) and file.read()) for one in tar]


@hypothesis.given(_members, some.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
@hypothesis.settings(deadline=None)
def test_only_times_change(members: list[tuple[str, bytes, bytes, float, int, bool]], form: int) -> None:
    before = archive(members, form)
    after = io.BytesIO()
    settle(io.BytesIO(before), after, 1000)
    assert listing(after.getvalue()) == listing(before)
    with tarfile.open(fileobj=io.BytesIO(after.getvalue())) as tar:
        for one, (_, _, _, mtime, _, _) in zip(tar, members, strict=True):
            assert 0 <= one.mtime <= 1000 and (not 0 <= mtime <= 999 or abs(one.mtime - mtime) < 1)
            assert not {"atime", "ctime", "mtime"} & set(one.pax_headers)
    again = io.BytesIO()
    settle(io.BytesIO(after.getvalue()), again, 1000)
    assert again.getvalue() == after.getvalue()


@hypothesis.given(some.binary(max_size=2000))
def test_what_is_no_tar_is_refused(content: bytes) -> None:
    if content.strip(b"\0"):
        with pytest.raises(ValueError):
            settle(io.BytesIO(content), io.BytesIO(), 0)


@hypothesis.given(some.data())
def test_a_tar_that_is_cut_off_is_refused(data: some.DataObject) -> None:
    whole = archive([("file", tarfile.REGTYPE, b"x" * 900, 1.5, 0, True)], tarfile.PAX_FORMAT)
    end = len(whole.rstrip(b"\0"))
    with pytest.raises(ValueError):
        settle(io.BytesIO(whole[:data.draw(some.integers(1, end - 1))]), io.BytesIO(), 0)
