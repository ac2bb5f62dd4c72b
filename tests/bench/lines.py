"""A device behind a line follows a channel over HTTP with fussy-update, by delta or by the full bundle.

The line is the loopback device of a network of our own (network_namespaces(7)), which tc-tbf(8) makes as slow.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disk import run

CLONE_NEWNET = 0x40000000
LINES = {"20 Mbit/s": "20mbit", "100 Mbit/s": "100mbit"}
# MiB that a delta may take (update.toml, ``memory``): our deltas take 8, so with 1 the full bundle is fetched.
WAYS = {"delta": 8, "full bundle": 1}
PUBLISH = """
export GNUPGHOME=$BUILD
fussy-publish "$OUT/channel-{tree}" init -p router --keyring "$DEVICE" -e "$READER" --sign-with "$SIGNER"
fussy-publish "$OUT/channel-{tree}" add router "{old}"
fussy-publish "$OUT/channel-{tree}" add router "{new}"
cp "$OUT/channel-{tree}/metadata/1.root.json" "$DEVICE/root.json"
"""
SETTINGS = 'sources = ["{url}"]\nproduct = "router"\nboards = ["bench"]\nmemory = {memory}\n'
UPDATE = 'fussy-update --no-delay -s "{settings}" -t "$DISK/t" -k "$DEVICE"'


def own_network() -> None:
    """Give this process a network of its own, with nothing but loopback in it (unshare(2))."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot have a network of our own")
    run("ip", "link", "set", "lo", "up")


def shape(rate: str) -> None:
    """Make loopback as slow as RATE (tc(8)); packets there have up to 64 KiB, which the bucket must hold."""
    run("tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate", rate, "burst", "128kb", "latency", "100ms")


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Meanwhile, serve DIRECTORY over HTTP from loopback; yield its address."""
    with subprocess.Popen([sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "-d", directory, "0"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{server.stdout.readline().split()[5]}"
        finally:
            server.terminate()


def settings(out: Path, url: str, memory: int) -> Path:
    """Write the settings of a device that follows the channel at URL; return their file."""
    path = out / f"update-{memory}.toml"
    path.write_text(SETTINGS.format(url=url, memory=memory))
    os.chmod(path, 0o600)
    return path
