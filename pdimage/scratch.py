"""Private directories for work in progress, which do not outlive it: not even by a kill or a power cut."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def directory(parent: Path, name: str) -> Iterator[Path]:
    """Have a new, empty directory below PARENT (made if missing), deleted in the end.

    Those of programs that were killed are deleted first: a directory is in use as long as somebody holds its lock.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f".{name}.~*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    with contextlib.ExitStack() as stack:
        path = _new(parent, name, stack)
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        yield path


def _new(parent: Path, name: str, stack: contextlib.ExitStack) -> Path:
    """Make a directory whose lock is held until STACK is closed. Before it is, another program may delete it."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{name}.~", dir=parent))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            stack.enter_context(_locked(path))
            if path.is_dir():
                return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a directory.

    :raises OSError: somebody else holds it, or it is gone
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
