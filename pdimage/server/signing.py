"""The one process that has the keys. It packs and signs what builds have made, after it has looked at it.

Workers start it (:class:`Signer`) and talk to it by lines of JSON on its standard input and output: an :class:`Order`
in, an :class:`Answer` out. It runs nothing of what it signs, and signs only a tree that says which request it is for.
"""

import logging
import os
import select
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from fussy import manifest, ondemand, pack
from fussy.errors import FussyError, SystemSetup
from pdimage import record
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)

SUMS = "sha256sums"


class Order(msgspec.Struct, frozen=True):
    """What to sign. ``tree``: a tree to be packed into ``output``, for ``request`` with this version. Without a tree,
    the file ``sha256sums`` in ``output`` is signed."""

    output: str
    tree: str = ""
    request: str = ""
    version: str = ""
    started: float = 0.0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The name of the bundle, or why nothing was signed."""

    bundle: str = ""
    error: str = ""


def check(tree: Path, request: str, version: str) -> None:
    """Refuse a tree that does not say for which request and version it is.

    :raises SystemSetup: it says something else, or nothing
    """
    said = manifest.decode_description((tree / manifest.DESCRIPTION.decode()).read_bytes())
    if said.metadata.get(ondemand.FIELD) != request or said.version != version:
        raise SystemSetup(f"cannot sign this tree: it is not for the request {request[:12]}, version {version}")


def sign(order: Order, settings: Settings) -> Answer:
    """Sign what an order names.

    :raises FussyError: there is no key, or the tree is not what it should be
    """
    output = Path(order.output)
    if not order.tree:
        sums = output / SUMS
        if settings.signify_key:
            _signify(sums, settings.root / settings.signify_key)
        return Answer()
    tree = Path(order.tree)
    check(tree, order.request, order.version)
    bundle = Path(pack.pack(
        tree, encrypt_for=settings.encrypt_for, sign_with=settings.sign_with or None, compress="zstd", output=output,
        passphrase_file=settings.root / settings.passphrase_file if settings.passphrase_file else None))
    record.write_beside(bundle, tree, datetime.fromtimestamp(order.started, UTC))
    return Answer(bundle.name)


def _signify(file: Path, key: Path) -> None:
    """Sign a file as OpenWrt's devices verify it (usign(1), which OpenBSD's signify(1) writes for)."""
    try:
        done = subprocess.run(["signify-openbsd", "-S", "-s", str(key), "-m", str(file), "-x", f"{file}.sig"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise SystemSetup("cannot sign sha256sums: signify-openbsd is missing; install it, or leave out the setting "
                          "signify_key") from error
    if done.returncode:
        raise SystemSetup(f"cannot sign sha256sums with {key}: {done.stderr.strip()}")


def main() -> None:
    """Answer orders until standard input ends. The settings come as the first argument."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    for line in sys.stdin.buffer:
        try:
            answer = sign(msgspec.json.decode(line, type=Order), settings)
        except FussyError as error:
            answer = Answer(error=str(error))
        except (OSError, msgspec.MsgspecError) as error:
            answer = Answer(error=f"cannot sign: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


class Signer:
    """The signing process, as workers see it. It is started when it is needed, and again after it died."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def sign(self, order: Order) -> Answer:
        """Have an order carried out.

        :raises SystemSetup: the process can't be started, or died, or took longer than a build may
        """
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(msgspec.json.encode(order) + b"\n")
                process.stdin.flush()
                return msgspec.json.decode(_line(process.stdout, self._settings.build_seconds), type=Answer)
            except (OSError, TimeoutError, msgspec.MsgspecError) as error:
                self._end()
                raise SystemSetup(f"cannot sign: the signing process failed ({error}); its log says why") from error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pdimage.server.signing", msgspec.json.encode(self._settings).decode()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "GNUPGHOME": str(self._settings.keys)})
        return self._process

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _line(stream: IO[bytes], seconds: float) -> bytes:
    ready, _, _ = select.select([stream], [], [], seconds)
    if not ready:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return stream.readline()


if __name__ == "__main__":
    main()
