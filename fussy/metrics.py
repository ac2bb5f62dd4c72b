"""Tells the state of a target to Prometheus: a text file for the textfile collector of its node exporter.

The format is the text-based exposition format of Prometheus, version 0.0.4.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fussy.errors import SystemSetup
from fussy.status import Release, Status
from fussy.uptime import Moment

# A label's name and its value, and the number that belongs to them.
_Sample = tuple[dict[str, str], float]


def text(status: Status, now: Moment) -> str:
    """Return STATUS as metrics; NOW tells them from older ones where the clock may be wrong."""
    return "".join(_lines(status, now))


def _lines(status: Status, now: Moment) -> Iterator[str]:
    releases: list[tuple[str, Release | None]] = [
        ("current", status.current), ("previous", status.previous), ("failsafe", status.failsafe),
        ("trial", status.trial)]
    yield from _metric("fussy_release_info", "Which release has which role.", [
        ({"role": role, "release": one.name, "version": one.version}, 1) for role, one in releases if one])
    yield from _metric("fussy_trial", "Whether a release must prove itself still.", [({}, status.trial is not None)])
    if status.trial and status.trial.seconds_left is not None and status.trial.boots_left is not None:
        yield from _metric("fussy_trial_seconds_left", "Uptime after which the release on trial is taken back.",
                           [({}, status.trial.seconds_left)])
        yield from _metric("fussy_trial_boots_left", "Boots that the release on trial has until it is taken back.",
                           [({}, status.trial.boots_left)])
    yield from _metric("fussy_bad_release_timestamp_seconds", "When a release failed on this device.", [
        ({"release": bad.release, "version": bad.version}, bad.at) for bad in status.bad])
    if status.last:
        yield from _metric("fussy_last_change_timestamp_seconds", "When the last change ended, and how.", [
            ({"release": status.last.release, "outcome": status.last.outcome}, status.last.at)])
    if status.check:
        yield from _metric("fussy_check_timestamp_seconds", "When releases were last compared with their manifests.",
                           [({}, status.check.at)])
        yield from _metric("fussy_check_broken_files", "Files that the last check found broken and did not mend.",
                           [({}, status.check.broken - status.check.mended)])
    if status.spare is not None:
        yield from _metric("fussy_spare_bytes", "Disk space that is held to make the next release of.",
                           [({}, status.spare)])
    if status.update:
        yield from _metric("fussy_update_timestamp_seconds", "When the updater last ran, and how that ended.",
                           [({"outcome": status.update.outcome}, status.update.at)])
        yield from _metric("fussy_update_checked_timestamp_seconds", "When the channel was last found valid, 0: never.",
                           [({}, status.update.checked or 0)])
        yield from _metric("fussy_update_next_window_timestamp_seconds",
                           "When a waiting update may be installed (0: nothing waits for a window).",
                           [({}, status.update.next_window or 0)])
        yield from _metric("fussy_update_held", "Whether the owner holds updates.", [({}, status.update.held)])
    yield from _metric("fussy_status_uptime_seconds", "Uptime of the device when this was written.", [({}, now.up)])


def _metric(name: str, meaning: str, samples: list[_Sample]) -> Iterator[str]:
    if samples:
        yield f"# HELP {name} {meaning}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{f'{{{inside}}}' if inside else ''} {float(value):.15g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(file: Path, status: Status, now: Moment) -> None:
    """Write the metrics to FILE, readable for all; whoever reads it sees the old ones or the new.

    :raises SystemSetup: it can't be written
    """
    temporary = ""
    try:
        # node exporter reads *.prom only
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", suffix="~", dir=file.parent)
        with os.fdopen(descriptor, "w") as made:
            made.write(text(status, now))
            os.fchmod(descriptor, 0o644)
        os.rename(temporary, file)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise SystemSetup(f"cannot write {file}: {error.strerror}; name another file with --prometheus") from error
