"""Checks that the releases of a target are still what was installed; fussy.repair mends those that are not.

Everything is read from the disk itself, not from what the kernel keeps of it in memory. A file that several releases
share is read once. What was added to a release is let be; ``fussy verify`` tells of it. How the last check ended is in
``.fussy/check.json``.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fussy import checked, disk, manifest, state, tree
from fussy.errors import BadBundle
from fussy.target import Target, hold

_MOST_LEFT = 32
# What was found of a file, by its device, its inode and what it should be.
_Known = dict[tuple[int, int, bytes], str]


class Left(msgspec.Struct, frozen=True):
    """A file that is still broken."""

    release: str
    path: str
    problem: str


class Report(msgspec.Struct, frozen=True):
    """How a check ended, at a Unix time: the releases that were looked at, how many of their files were broken, how
    many of these were mended, and what is left (the first 32). note: why the channel could not help."""

    at: int
    releases: list[str]
    broken: int = 0
    mended: int = 0
    left: list[Left] = []
    note: str = ""


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry of a release.

    DIGEST is that of the release's manifest as it should be ("": not known), INDEX the place in it, -1 for the manifest
    itself. INODE is that of the file that is there, 0 if there is none.
    """

    release: Path
    digest: str
    index: int
    entry: manifest.Entry
    problem: str
    inode: int = 0

    @property
    def file(self) -> Path:
        return self.release / os.fsdecode(self.entry.name)


def examine(target: Target, releases: Iterable[Path] | None = None) -> list[Fault]:
    """Compare all releases of TARGET, or those named, with their manifests; the target need not be locked."""
    known: _Known = {}
    digests = state.load(target).digests
    named = target.releases() if releases is None else releases
    return [fault for release in named for fault in _faults(release, digests.get(release.name, ""), known)]


def still(faults: list[Fault]) -> list[Fault]:
    """Return those of FAULTS that are there yet; releases that were deleted or exchanged have none."""
    manifests = {release: manifest.release_digest(release) for release in {fault.release for fault in faults}}
    known: _Known = {}
    found: dict[tuple[Path, bytes], Fault] = {}
    for fault in faults:
        have = manifests[fault.release]
        if fault.index < 0:
            there = fault.release.is_dir() and (not fault.digest or have != fault.digest)
        else:
            there = have == fault.digest and (leads_away(fault.file) or (fault.release, fault.entry.link) in found
                                              or bool(_problem(os.fsencode(fault.release), fault.entry, known)[0]))
        if there:
            found[fault.release, fault.entry.name] = fault
    return list(found.values())


def leads_away(file: Path) -> bool:
    """Whether a directory above FILE is not there, or is a link: nothing may be written through it."""
    return os.path.realpath(file.parent) != os.fspath(file.parent)


def _faults(release: Path, digest: str, known: _Known) -> Iterator[Fault]:
    try:
        data = (release / os.fsdecode(manifest.PATH)).read_bytes()
        if digest and manifest.digest(data) != digest:
            raise BadBundle("has other content")
        entries = manifest.decode(data).entries
    except (OSError, BadBundle) as error:
        if release.is_dir():  # not deleted meanwhile
            wrong = str(error)
            if isinstance(error, OSError):
                wrong = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror}"
            entry = manifest.Entry(type="file", path=manifest.PATH.decode(), sha256=digest, mtime=state.now())
            yield Fault(release, digest, -1, entry, wrong)
        return
    digest = manifest.digest(data)
    root = os.fsencode(release)
    broken: set[bytes] = set()
    for index, entry in enumerate(entries):
        if os.path.dirname(entry.name) in broken:
            problem, inode = "is missing", 0  # a parent may lead anywhere
        else:
            problem, inode = _problem(root, entry, known)
        if entry.type == "hardlink" and entry.link in broken:
            problem = problem or "is the same file as a broken one"
        if problem:
            if entry.type != "directory" or problem.startswith("is "):
                broken.add(entry.name)
            yield Fault(release, digest, index, entry, problem, inode)


def _problem(root: bytes, entry: manifest.Entry, known: _Known) -> tuple[str, int]:
    """Return the first thing that is wrong with an entry ("": nothing), and the inode that is there."""
    path = root if entry.name == b"." else root + b"/" + entry.name
    inode = 0
    try:
        facts = os.lstat(path)
        inode = facts.st_ino
        key = (facts.st_dev, inode, entry.identity())
        if entry.type == "file" and key in known:
            return known[key], inode
        found = tree.differences(path, facts, entry, _from_disk)
        if entry.type == "hardlink" and not os.path.samestat(facts, os.lstat(root + b"/" + entry.link)):
            found.append(f"is not the same file as {os.fsdecode(entry.link)!r}")
        problem = found[0] if found else ""
        if entry.type == "file":
            known[key] = problem
        return problem, inode
    except (FileNotFoundError, NotADirectoryError):
        return "is missing", inode
    except OSError as error:
        return f"can't be read: {error.strerror}", inode


def _from_disk(descriptor: int) -> str:
    """Return the SHA-256 of an open file, as the disk has it."""
    # what the kernel has in memory may be better than what is on the disk, and others need that memory
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    digest = tree.digest_of(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return digest


def note(target: Target, releases: list[Path], faults: list[Fault], left: list[Fault], why: str = "") -> Report:
    """Write down, and return, how a check of RELEASES ended that found FAULTS, of which are LEFT.

    New releases will not share the files that were broken. Of a whole release the digest is noted, if it was not known.
    """
    told = [Left(fault.release.name, os.fsdecode(fault.entry.name), fault.problem) for fault in left]
    report = Report(state.now(), [release.name for release in releases], len(faults), len(faults) - len(left),
                    told[:_MOST_LEFT], why)
    with hold(target.root) as held:
        checked.forget(held, {fault.inode for fault in faults})
        now = state.load(held)
        for release in set(releases) - {fault.release for fault in left}:
            if release.name not in now.digests and (digest := manifest.release_digest(release)):
                now = state.with_digest(now, held, release.name, digest)
        if now.digests != state.load(held).digests:
            state.save(held, now)
        disk.replace_file(_file(held), msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return report


def load(target: Target) -> Report | None:
    """Return how the last check ended; None if there was none that can be read."""
    try:
        return msgspec.json.decode(_file(target).read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        return None


def _file(target: Target) -> Path:
    return target.private / "check.json"


def line(report: Report) -> str:
    """Return a report in one line.

    >>> line(Report(0, ["firmware-7", "failsafe"]))
    '2 releases are whole'
    >>> line(Report(0, ["firmware-7"], broken=3, mended=2))
    '1 release: 3 files were broken, 2 of them are mended'
    >>> line(Report(0, ["firmware-7"], broken=1, mended=1))
    '1 release: 1 file was broken, it is mended'
    >>> line(Report(0, ["firmware-7", "failsafe"], broken=2))
    '2 releases: 2 files are broken'
    """
    count = len(report.releases)
    looked = f"{count} release{'' if count == 1 else 's'}"
    if not report.broken:
        return f"{looked} {'is' if count == 1 else 'are'} whole"
    if not report.mended:
        return f"{looked}: {'1 file is' if report.broken == 1 else f'{report.broken} files are'} broken"
    if report.broken == 1:
        return f"{looked}: 1 file was broken, it is mended"
    mended = "all of them are" if report.mended == report.broken else \
        f"{report.mended} of them {'is' if report.mended == 1 else 'are'}"
    return f"{looked}: {report.broken} files were broken, {mended} mended"
