"""What the device's owner demands of a release, beyond what it demands of itself.

::

    /etc/fussy/                  (another directory: $FUSSY_ETC)
        trial.toml               confirm, seconds, boots, watchdog: see fussy.manifest.Trial
        health.d/
            wan.toml lan.json    the fields of one check each: see fussy.manifest.Check; the name may be left out
            voip                 a program that must end with status 0

The owner can demand more than the release does, never less: see :func:`stricter`.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from fussy.errors import SystemSetup
from fussy.manifest import Check, Confirm, Trial, check_problem

_STRICTNESS: tuple[Confirm, ...] = get_args(Confirm)


def directory() -> Path:
    """Return the directory of the owner's files."""
    return Path(os.environ.get("FUSSY_ETC", "/etc/fussy"))


def stricter(release: Trial, owner: Trial) -> Trial:
    """Return what counts when both demand something: the later confirmation, with the time that goes with it.

    Where they agree on that, the shorter time and the fewer boots count. The owner knows the watchdog better.

    >>> stricter(Trial("boot", 600), Trial("hand", 86400, 9)) == Trial("hand", 86400, 9)
    True
    >>> stricter(Trial("boot", 600, 5), Trial("boot", 900, 1)) == Trial("boot", 600, 1)
    True
    """
    watchdog = owner.watchdog or release.watchdog
    if release.confirm == owner.confirm:
        return Trial(release.confirm, min(release.seconds, owner.seconds), min(release.boots, owner.boots), watchdog)
    more = max(release, owner, key=lambda trial: _STRICTNESS.index(trial.confirm))
    return msgspec.structs.replace(more, watchdog=watchdog)


def demands(etc: Path) -> Trial:
    """Return what ``trial.toml`` says; without it, nothing is demanded.

    :raises SystemSetup: it can't be read
    """
    file = etc / "trial.toml"
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Trial)
    except FileNotFoundError:
        return Trial()
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise SystemSetup(f"cannot read {file}: {error}; correct it") from error


def checks(etc: Path) -> list[Check]:
    """Return the checks in ``health.d``, by the names of their files.

    :raises SystemSetup: a file is no check; all that are wrong are told
    """
    found: list[Check] = []
    wrong = []
    for file in _files(etc / "health.d"):
        try:
            found.append(_check(file))
        except (msgspec.MsgspecError, OSError, ValueError) as error:
            wrong.append(f"{file}: {error}")
    if wrong:
        raise SystemSetup(f"cannot read the owner's health checks: {'; '.join(wrong)}; correct or remove them")
    return found


def refuse_mistakes(etc: Path) -> None:
    """Refuse files that will not be understood, before anything depends on them.

    :raises SystemSetup: as :func:`demands` and :func:`checks`
    """
    demands(etc)
    checks(etc)


def _files(where: Path) -> Iterator[Path]:
    """Yield the files that count: none that are hidden, or left by an editor."""
    if where.is_dir():
        yield from sorted(file for file in where.iterdir() if not file.name.startswith(".") and file.name[-1] != "~")


def _check(file: Path) -> Check:
    name = f"health.d/{file.name}"
    if file.suffix in (".toml", ".json"):
        data = file.read_bytes()
        fields: Any = msgspec.toml.decode(data) if file.suffix == ".toml" else msgspec.json.decode(data)
        check = msgspec.convert({"name": name, **fields} if isinstance(fields, dict) else fields, Check)
        if problem := check_problem(check):
            raise ValueError(problem)
        return check
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode) or not facts.st_mode & 0o111:
        raise ValueError("neither a program (it has no x bit) nor called *.toml or *.json")
    return Check(name, command=[os.fspath(file)])
