"""Where gpg finds keys: a device's keyring copied to a throw-away directory, or a build machine's own ring.

Work on keys goes through python-gnupg; see :func:`key_tool`.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fussy.errors import NoSpace, SystemSetup, full, is_full
from fussy.trust import Key, printable

RINGS = ("pubring.kbx", "pubring.gpg")
TRUST = "trustdb.gpg"
SECRET_KEYS = "private-keys-v1.d"
PREFIX = "fussy-gpg-"
_LACKING = re.compile(r"can't connect to the agent.*|error while loading shared libraries.*|out of (core|memory).*"
                      r"|Cannot allocate memory", re.ASCII)


@contextlib.contextmanager
def private_home() -> Iterator[Path]:
    """Make a GNUPGHOME that only this user can enter and that is gone when the block ends.

    It lies in memory where it can (``/run``), as copies of secret keys go there, and its path is short: the socket of
    gpg-agent in it may have 107 bytes. It is locked while in use; what a killed process left behind is swept away.
    """
    place = short_place(["/run", *(os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "TMPDIR")), "/tmp"])
    sweep(place)
    home, descriptor = locked_directory(place)
    try:
        yield home
    finally:
        stop_agent(home)
        shutil.rmtree(home, ignore_errors=True)
        os.close(descriptor)


def locked_directory(place: Path) -> tuple[Path, int]:
    """Make a private directory and hold its lock; return its path and the descriptor that holds it."""
    while True:
        home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        try:
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # another process swept it away before it could be locked
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if home.exists():
            return home, descriptor
        os.close(descriptor)


def short_place(candidates: Iterable[str]) -> Path:
    """Choose the first directory that can be written and whose path leaves room for that of a socket.

    :raises SystemSetup: there is none
    """
    for place in candidates:
        if place and len(os.fsencode(place)) <= 60 and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise SystemSetup("cannot make a private directory for gpg: neither /run nor /tmp can be written; set TMPDIR")


def sweep(place: Path) -> None:
    """Remove private directories of this user that no process holds any more."""
    for home in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    stop_agent(home)
                    shutil.rmtree(home, ignore_errors=True)
            finally:
                os.close(descriptor)


def stop_agent(home: Path) -> None:
    """End the gpg-agent of a GNUPGHOME, if one runs, and remove the directory of its sockets."""
    if _asked_to_end(home / "S.gpg-agent"):
        return
    for what in (["--kill", "gpg-agent"], ["--remove-socketdir"]):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["gpgconf", "--homedir", str(home), *what], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False)


def _asked_to_end(agent: Path) -> bool:
    """Ask the gpg-agent that listens at a socket to end, in its own words; return whether it agrees.

    Two runs of gpgconf, which also finds sockets elsewhere (``/run/user``), take twenty times as long.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(os.fspath(agent))
        connection.sendall(b"KILLAGENT\n")
        with connection.makefile("rb") as said:
            return said.readline(1000).startswith(b"OK") and said.readline(1000).startswith(b"OK")
    return False


def copy_keyring(keyring: Path, home: Path) -> float:
    """Copy what gpg needs of a device's key directory; return the newest modification time of its files.

    :raises SystemSetup: the directory holds no keys or can't be read as a whole
    :raises NoSpace: there is no room for the copy
    """
    try:
        files = [Path(name) for name in (*RINGS, TRUST) if (keyring / name).exists()]
        if not any(file.name in RINGS for file in files):
            what = "it holds no public keys" if keyring.is_dir() else "there is no such directory"
            raise SystemSetup(f"cannot use the keyring {keyring}: {what}; make one with `fussy keys keyring`, "
                              "or name another one (fussy-install --keyring)")
        if (keyring / SECRET_KEYS).exists():
            (home / SECRET_KEYS).mkdir(mode=0o700)
            files += [Path(SECRET_KEYS, name) for name in os.listdir(keyring / SECRET_KEYS) if name.endswith(".key")]
        for file in files:
            shutil.copyfile(keyring / file, home / file)
        return max((keyring / file).stat().st_mtime for file in files)
    except OSError as error:
        if is_full(error):
            raise NoSpace(f"cannot copy the keyring {keyring}: {full(home.parent, error)}; make room there") from error
        raise SystemSetup(f"cannot read the keyring {keyring}: {error.strerror}: {error.filename}; "
                          "run as the user whose keys these are") from error


def lacking(returncode: int, words: str) -> str:
    """Return what kept gpg from its work, by how it ended and its words for people, if the message is not to blame.

    What the kernel kills where memory is short gets SIGKILL; without its agent gpg says as if it had no such key.
    """
    if returncode == -signal.SIGKILL:
        return "gpg was killed, as the kernel does where memory is short; end other programs, and try again"
    if returncode and (match := _LACKING.search(words)):
        return f"gpg can't do its work ({printable(match[0])}); see whether memory is short, and try again"
    return ""


def secret_keygrips(home: Path) -> set[str]:
    """Name the keys whose secret half lies in a GNUPGHOME."""
    return {path.stem for path in (home / SECRET_KEYS).glob("*.key")}


def has_passphrase(home: Path | None, key: Key) -> bool:
    """Whether the secret half of a key is protected, or on a card, so that signing with it may ask for something."""
    ring = home or Path(os.environ.get("GNUPGHOME") or "~/.gnupg").expanduser()
    files = [ring / SECRET_KEYS / f"{grip}.key" for grip in key.keygrips]
    secret = [file.read_bytes() for file in files if file.exists()]
    return not secret or any(b"protected-private-key" in one or b"shadowed-private-key" in one for one in secret)


def key_tool(home: Path | None, limit: float = 120.0) -> Any:
    """Return a python-gnupg ``GPG`` for work on keys, each of whose runs is ended after LIMIT seconds.

    Texts go in and out as Latin-1, which keeps every byte; see :func:`readable`.

    :param home: GNUPGHOME; by default the user's
    :raises SystemSetup: gpg or the directory is missing
    """
    if home is not None and not home.is_dir():
        raise SystemSetup(f"cannot use the key directory {home}: there is no such directory; make a key in it first")
    import gnupg  # 36 ms, which `--help` does not have to pay

    class Tool(gnupg.GPG):  # type: ignore[misc]
        def _collect_output(self, process: subprocess.Popen[bytes], *arguments: Any, **settings: Any) -> Any:
            timer = threading.Timer(limit, process.kill)
            timer.start()
            try:
                return super()._collect_output(process, *arguments, **settings)
            finally:
                timer.cancel()

    try:
        return Tool(gnupghome=None if home is None else str(home), env={**os.environ, "LC_ALL": "C"},
                    options=["--no-options", "--no-auto-key-locate", "--disable-dirmngr", "--display-charset", "utf-8"])
    except (OSError, ValueError) as error:
        raise SystemSetup(f"cannot run gpg: {error}; install the package gnupg") from error


def list_keys(home: Path | None, query: str | None = None, *, secret: bool = False) -> list[Key]:
    """List the keys of a ring, or those that gpg finds by QUERY (see :func:`fussy.trust.key_query`).

    :raises SystemSetup: gpg could not do its work
    """
    found = key_tool(home).list_keys(secret, keys=[query] if query else None)
    if why := lacking(found.returncode, found.stderr):
        raise SystemSetup(f"cannot list keys: {why}")
    return [key_of(one) for one in found]


def key_of(listed: dict[str, Any]) -> Key:
    """Take what matters from python-gnupg's description of a key."""
    return Key(
        fingerprint=listed["fingerprint"],
        user_ids=tuple(map(readable, listed["uids"])),
        validity=listed["trust"],
        capabilities=listed["cap"],
        ownertrust=listed["ownertrust"],
        created=int(listed["date"] or 0),
        expires=int(listed["expires"] or 0),
        subkeys=tuple(subkey[2] for subkey in listed["subkeys"]),
        keygrips=(listed["keygrip"], *(subkey[3] for subkey in listed["subkeys"])),
    )


def readable(text: str) -> str:
    """Turn text from :func:`key_tool` into what can be shown on one line.

    >>> readable("J\u00c3\u00bcrg\\n<j@example.org>")
    'Jürg?<j@example.org>'
    """
    return printable(text.encode("latin-1", "replace").decode("utf-8", "replace"))
