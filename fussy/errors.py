"""Errors made for operators, with the exit code each one ends a command with.

::

    FussyError                1   anything below, when nothing more exact fits
    ├── Reverted              3   the release failed after it had begun; the previous one is current again
    ├── Unrecoverable         4   the release failed and there was nothing to fall back to
    ├── Busy                  5   another fussy command works on the same target
    ├── OnTrial              12   a release is on trial: confirm or reject it first
    ├── Untrusted            20   no valid signature by an allowed key over the whole bundle
    ├── BadBundle            21   the signed content is not a well-formed, safe bundle
    ├── Incompatible         22   a sound bundle, but not for this device, installer or version
    ├── NoSpace              23   too few free bytes or inodes, said before anything is written
    ├── DamagedRelease       24   an installed release differs from its manifest
    ├── UnusableDelta        25   the base release of a delta is missing or altered: take the full bundle
    ├── OnlyRefused          26   the channel offers only releases that failed here or must not be installed
    ├── HookFailed           30   .pre-install or .post-install failed, hung or could not be started
    ├── UnhealthyRelease     31   a health check of the release failed
    ├── SystemSetup          40   the machine lacks something: a program, a key, a usable target
    ├── Unreachable          50   no source of the channel can be reached
    ├── UntrustedChannel     51   the channel's metadata or files can't be trusted: an attack, or expired
    └── TooSlow              52   a source is too slow, or the time for an update is over

Exit code 2 is a usage error of the command line (click's own). The codes 3, 4, 20, 21 and 40 are those of fussy 1.0.
Messages read "cannot …: …" and end with what the operator can do. Whatever is not a FussyError is a bug and ends in
a traceback; what is the machine's fault, :func:`of_machine` knows.
"""

import errno
import os
from typing import TypeGuard


class FussyError(Exception):
    """Base of all errors that a command reports in one line."""

    exit_code = 1


class Reverted(FussyError):
    """A release could not be enabled and the one before it is in use again."""

    exit_code = 3


class Unrecoverable(FussyError):
    """A release could not be enabled and nothing could be brought back."""

    exit_code = 4


class Busy(FussyError):
    """Another command holds the lock of the target."""

    exit_code = 5


class OnTrial(FussyError):
    """A release is on trial, and what was asked for must wait until that has ended."""

    exit_code = 12


class Untrusted(FussyError):
    """The bundle's signature does not vouch for it."""

    exit_code = 20


class BadBundle(FussyError):
    """The content of a bundle is malformed or unsafe."""

    exit_code = 21


class Incompatible(FussyError):
    """The bundle is not meant for this device, this installer or this version."""

    exit_code = 22


class NoSpace(FussyError):
    """The target has too few free bytes or inodes."""

    exit_code = 23


class DamagedRelease(FussyError):
    """An installed release is not what its manifest says."""

    exit_code = 24


class UnusableDelta(FussyError):
    """The release that a delta was made against is not here, or was altered; the full bundle can be installed."""

    exit_code = 25


class OnlyRefused(FussyError):
    """All newer releases that the channel offers failed on this device before, or are too old."""

    exit_code = 26


class HookFailed(FussyError):
    """An install hook did not end well."""

    exit_code = 30


class UnhealthyRelease(FussyError):
    """A release is current, but one of its health checks fails."""

    exit_code = 31


class SystemSetup(FussyError):
    """Something about this machine has to be put right first."""

    exit_code = 40


class Unreachable(FussyError):
    """No source of the channel gave what was asked for."""

    exit_code = 50


class UntrustedChannel(FussyError):
    """What a source of the channel says is not to be believed."""

    exit_code = 51


class TooSlow(FussyError):
    """A source sends too slowly, or the time that an update may take is over."""

    exit_code = 52


def is_full(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether an error says that a file system has no more room, or none for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def full(place: str | os.PathLike[str], error: OSError) -> str:
    """Return in words that PLACE has no more room.

    >>> full("/opt", OSError(errno.ENOSPC, "")), full("/opt", OSError(errno.EDQUOT, ""))
    ('/opt is full', 'the quota in /opt is used up')
    """
    return f"the quota in {place} is used up" if error.errno == errno.EDQUOT else f"{place} is full"


def words(error: Exception) -> str:
    """Return an error in words; one of the operating system with its file.

    >>> words(OSError(17, "File exists", "/opt")), words(OSError(5, "Input/output error")), words(OSError("odd"))
    ('/opt: File exists', 'Input/output error', 'odd')
    """
    if not isinstance(error, OSError):
        return str(error)
    place = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    return f"{f'{place}: ' if place else ''}{error.strerror or error}"


def of_machine(error: Exception, place: str | os.PathLike[str] = "") -> FussyError | None:
    """Return what to say where the machine failed: its disk, its memory, a device. None: ERROR is something else.

    PLACE is where it worked, for an error that names no file.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM) or (
            isinstance(error, RuntimeError) and "can't start new thread" in str(error)):
        return SystemSetup("cannot go on: this machine has not enough memory; end other programs, or allow this one "
                           "more, and try again")
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):  # click ends a command whose reader went
        return None
    said = f"cannot go on: {f'{place}: ' if place and not error.filename else ''}{words(error)}"
    if is_full(error):
        return NoSpace(f"{said}; run fussy-clean --no-spare or make room")
    return SystemSetup(f"{said}; the disk may be failing, see dmesg" if error.errno == errno.EIO else said)
