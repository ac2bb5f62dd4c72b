"""Throw-away keys for the measurements, in GnuPG homes of their own."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def gpg(home: Path, *argv: str, stdin: str = "") -> str:
    return subprocess.run(["gpg", "--homedir", home, "--batch", "--yes", "-q", *argv], check=True, input=stdin,
                          capture_output=True, text=True).stdout


def forget(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


def make_key(stack: ExitStack, owner: str) -> tuple[Path, str]:
    """Make a GnuPG home with a key that signs and a subkey that decrypts; return it and the key's fingerprint."""
    home = Path(tempfile.mkdtemp(prefix="fussy-bench-"))  # short: gpg-agent's socket lies in it
    stack.callback(forget, home)
    gpg(home, "--passphrase", "", "--quick-gen-key", f"{owner} <{owner}@bench.invalid>", "default", "default", "never")
    listed = gpg(home, "--with-colons", "--list-keys")
    return home, next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))


@contextmanager
def keys() -> Iterator[dict[str, str]]:
    """Make a build machine's and a device's keys, and yield the environment that jobs expect (see jobs.py)."""
    with ExitStack() as stack:
        build, signer = make_key(stack, "build")
        device, reader = make_key(stack, "device")
        gpg(device, "--import", stdin=gpg(build, "--armor", "--export"))
        gpg(build, "--import", stdin=gpg(device, "--armor", "--export"))
        gpg(device, "--import-ownertrust", stdin=f"{signer}:6:\n")
        yield {"BUILD": str(build), "SIGNER": signer, "DEVICE": str(device), "READER": reader}
