"""Locks for directories, which many can share or one can hold alone.

Two kinds live here. :func:`lock`, :func:`trylock` and :func:`unlock` are the documented ones: a holder is named by the
file KEY_PATH (a prefix's ``uuid``), and it keeps the lock after its process has ended, until it is unlocked or the key
is gone. :func:`held` is for work inside one process, and ends with it.

A lock is one file in the directory, ``.lock``: how it is held, then a line for each holder.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1


def lock(path: str | Path, excl: bool, key_path: str | Path) -> None:
    """Wait until KEY_PATH holds the lock of the directory PATH: alone if EXCL, otherwise perhaps with others."""
    while not trylock(path, excl, key_path):
        time.sleep(POLL_SECONDS)


def trylock(path: str | Path, excl: bool, key_path: str | Path) -> bool:
    """Take the lock of the directory PATH for KEY_PATH if it can be had at once; return whether it is held now.

    Holders whose key file is gone or was changed (another prefix is there now) no longer count.
    """
    with _opened(_lock_path(path)) as file:
        alone, holders = _read(file)
        own = _identity(key_path)
        others = [holder for holder in holders if holder != own]
        if others and (alone or excl):
            return False
        _write(file, excl, [*others, own])
        return True


def unlock(path: str | Path, key_path: str | Path) -> None:
    """Give the lock of the directory PATH back; nothing happens if KEY_PATH does not hold it."""
    with _opened(_lock_path(path)) as file:
        alone, holders = _read(file)
        _write(file, alone, [holder for holder in holders if holder != _identity(key_path)])


@contextlib.contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Hold the directory PATH alone while the context lasts; waits for whoever has it."""
    with _opened(_lock_path(path)):
        yield


@contextlib.contextmanager
def held_file(path: str | Path) -> Iterator[None]:
    """Hold the lock file PATH, made if missing, while the context lasts; waits for whoever has it."""
    with _opened(path):
        yield


def _lock_path(path: str | Path) -> Path:
    """Return the file that holds the lock of the directory PATH."""
    return Path(path) / ".lock"


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[IO[str]]:
    """Have the lock file PATH, made if missing, to oneself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _identity(key_path: str | Path) -> tuple[str, str]:
    """Return what names a holder: its key file, and what is in it."""
    path = Path(key_path).absolute()
    return str(path), path.read_text(encoding="utf-8").strip()


def _read(file: IO[str]) -> tuple[bool, list[tuple[str, str]]]:
    """Return whether the lock is held alone, and by whom; those that are gone are left out."""
    file.seek(0)
    kind, *lines = file.read().splitlines() or [""]
    holders = []
    for line in lines:
        content, _, path = line.partition(" ")
        with contextlib.suppress(OSError):
            if Path(path).read_text(encoding="utf-8").strip() == content:
                holders.append((path, content))
    return kind == "exclusive", holders


def _write(file: IO[str], alone: bool, holders: list[tuple[str, str]]) -> None:
    file.seek(0)
    file.truncate()
    file.write("".join(["exclusive\n" if alone else "shared\n", *(f"{content} {path}\n" for path, content in holders)]))
    file.flush()
