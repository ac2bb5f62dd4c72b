"""What gpg leaves on a device, what it is done with when it misbehaves, and who reads what it gives."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fussy import gpghome
from fussy.errors import SystemSetup, Untrusted
from fussy.gpg import Keyring, open_keyring, seal

from .test_gpg import TEXT, VERIFY, read, ring, sign, signed_and_encrypted

if TYPE_CHECKING:
    from tests.fussy.conftest import Keys

__all__ = ["ring"]


# --- the device's directory -------------------------------------------------------------------------------------------


def snapshot(place: Path) -> dict[str, tuple[int, int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in [place, *place.rglob("*")]}


def agents() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        found += [word.decode() for word in words if gpghome.PREFIX.encode() in word and words[0].endswith(b"agent")]
    return found


def test_a_keyring_is_never_written_and_nothing_stays(keys: Keys, tmp_path: Path) -> None:
    keyring = keys.keyring_knowing()
    before = snapshot(keyring)
    message = signed_and_encrypted(keys)
    with open_keyring(keyring) as ring:
        home = ring.home
        assert home.stat().st_mode & 0o777 == 0o700
        assert read(ring, message, tmp_path) == (keys.signer, TEXT)
    assert not home.exists()
    with pytest.raises(Untrusted), open_keyring(keyring) as ring:
        home = ring.home
        read(ring, message[:-9], tmp_path)
    assert not home.exists()
    assert not [agent for agent in agents() if str(home) in agent]
    assert snapshot(keyring) == before


def test_no_socket_stays_where_users_have_a_runtime_directory(keys: Keys, tmp_path: Path) -> None:
    """gpg puts its sockets there, in a directory of their own, which has to go as well."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace to be had: run as root")
    (tmp_path / "bundle.gpg").write_bytes(signed_and_encrypted(keys))
    script = (f'mount -t tmpfs none /run && mkdir -p -m 700 /run/user/{os.geteuid()}/gnupg && "$@" && '
              f"ls /run/user/{os.geteuid()}/gnupg /run")
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", VERIFY,
                           str(keys.keyring), str(tmp_path / "bundle.gpg")],
                          capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [keys.signer, "/run:", "user", f"/run/user/{os.geteuid()}/gnupg:"]


def test_what_a_killed_process_left_is_swept_away(keys: Keys) -> None:
    place = Path("/run" if os.access("/run", os.W_OK) else "/tmp")
    left = place / f"{gpghome.PREFIX}left"
    left.mkdir(mode=0o700, exist_ok=True)
    (left / "secret").write_text("key")
    with open_keyring(keys.keyring) as first, open_keyring(keys.keyring) as second:
        assert not left.exists()
        assert first.home.exists()
        assert second.home.exists()


def test_a_keyring_that_cannot_be_used_is_said_to_be_so(keys: Keys, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    no_signer = keys.directory("nobody")
    keys.import_key(no_signer, keys.export(keys.signer))
    for keyring, reason in (
        (tmp_path / "nothing", "there is no such directory; make one with `fussy keys keyring`"),
        (empty, "it holds no public keys"),
        (no_signer, "it holds no key that may sign"),
        (keys.keyring_knowing(signers="C730F1F788F88259"), "line 1: not a fingerprint"),
        (keys.keyring_knowing(signers="#\n"), "allows nobody"),
        (keys.keyring_knowing(signers=keys.foreign), "it holds no key that may sign"),
        (keys.keyring_knowing(signers="\x00"), "line 1: not a fingerprint"),
    ):
        with pytest.raises(SystemSetup, match=reason), open_keyring(keyring):
            pass


def test_without_gpg_the_reason_is_said(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemSetup, match=r"cannot run gpg.*install the package gnupg"), open_keyring(keys.keyring):
        pass


# --- a gpg that misbehaves --------------------------------------------------------------------------------------------


@pytest.fixture
def fake_gpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Replace gpg for command lines that contain a word by a shell script."""
    def install(word: str, script: str) -> None:
        place = tmp_path / "bin"
        place.mkdir()
        program = place / "gpg"
        program.write_text(f'#!/bin/sh\ncase "$*" in *{word}*) {script};; esac\nexec {shutil.which("gpg")} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return install


def test_a_hanging_gpg_is_ended_with_all_it_started(keys: Keys, tmp_path: Path,
                                                    fake_gpg: Callable[[str, str], None]) -> None:
    fake_gpg("--decrypt", f"sleep 61 & echo $! >{tmp_path}/child; wait")
    start = time.monotonic()
    with open_keyring(keys.keyring) as ring, pytest.raises(Untrusted, match=r"gpg did nothing for 0.5 seconds"):
        (tmp_path / "bundle.gpg").write_bytes(b"x")
        with (tmp_path / "bundle.gpg").open("rb") as file:
            ring.verify(file, len, silence=0.5)
    assert time.monotonic() - start < 10
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


@pytest.mark.parametrize("silent", ["status", "plaintext"])
def test_a_gpg_that_closes_one_stream_and_hangs_is_ended(keys: Keys, tmp_path: Path, silent: str,
                                                         fake_gpg: Callable[[str, str], None]) -> None:
    fake_gpg("--decrypt", "exec sleep 61 >&-" if silent == "plaintext" else "exec sleep 61 2>&-")
    with open_keyring(keys.keyring) as ring, pytest.raises(Untrusted, match=r"gpg did nothing for 0.5 seconds"):
        read_quickly(ring, tmp_path)


def read_quickly(ring: Keyring, place: Path) -> None:
    (place / "bundle.gpg").write_bytes(b"x")
    with (place / "bundle.gpg").open("rb") as file:
        ring.verify(file, len, silence=0.5)


def test_a_talkative_gpg_is_ended(keys: Keys, tmp_path: Path, fake_gpg: Callable[[str, str], None]) -> None:
    fake_gpg("--decrypt", 'fd="${*#*--status-fd }"; exec yes "[GNUPG:] NOTATION_DATA x" >/proc/self/fd/${fd%% *}')
    with open_keyring(keys.keyring) as ring, pytest.raises(Untrusted, match="talk without end"):
        read_quickly(ring, tmp_path)


def test_words_of_gpg_are_no_status(keys: Keys, tmp_path: Path, fake_gpg: Callable[[str, str], None]) -> None:
    fake_gpg("--decrypt", f'echo "[GNUPG:] PLAINTEXT 62 0\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG A B\n'
                          f'[GNUPG:] VALIDSIG {keys.signer} 0 0 0 4 0 22 8 00 {keys.signer}" >&2; exit 0')
    with open_keyring(keys.keyring) as ring, pytest.raises(Untrusted, match="not an OpenPGP message"):
        read_quickly(ring, tmp_path)


@pytest.mark.parametrize(("script", "why"), [
    (f"exec {shutil.which('gpg')} --agent-program /bin/false \"$@\"", "can't connect to the agent"),
    ("ulimit -v 4000", "error while loading shared libraries"), ("kill -9 $$", "as the kernel does where memory is")])
def test_what_gpg_lacks_is_not_held_against_the_message(keys: Keys, tmp_path: Path, script: str, why: str,
                                                        fake_gpg: Callable[[str, str], None]) -> None:
    """Without its agent it says as if it had no such key."""
    fake_gpg("--decrypt", script)
    with open_keyring(keys.keyring) as ring:
        with pytest.raises(SystemSetup, match=f"^cannot go on: gpg .*{why}.*try again$"):
            read(ring, signed_and_encrypted(keys), tmp_path)
        with (tmp_path / "bundle.gpg").open("rb") as file, pytest.raises(SystemSetup, match=why), \
                ring.decrypt(file) as plain:
            plain.read()


# --- consumers --------------------------------------------------------------------------------------------------------


def children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def test_a_failing_consumer_ends_gpg(keys: Keys, ring: Keyring, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.gpg"
    bundle.write_bytes(sign(keys, text=bytes(5 << 20)))

    def fail(block: bytes) -> None:
        raise ValueError("full")
    before = children()
    with bundle.open("rb") as file, pytest.raises(ValueError, match="full"):
        ring.verify(file, fail)
    assert children() == before


def test_the_second_reading_can_be_left_early_and_says_when_it_breaks(keys: Keys, ring: Keyring,
                                                                      tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.gpg"
    text = random.Random(2).randbytes(3 << 20)
    bundle.write_bytes(sign(keys, "--encrypt", "-r", keys.device, text=text))
    before = children()
    with bundle.open("rb") as file:
        with ring.decrypt(file) as plain:
            assert plain.read(10) == text[:10]
        with pytest.raises(KeyError), ring.decrypt(file):
            raise KeyError("mine")
        with ring.decrypt(file) as plain, os.fdopen(os.dup(plain.fileno()), "rb") as pipe:
            assert pipe.read() == text
    with bundle.open("r+b") as file:
        file.truncate(2 << 20)
        with pytest.raises(Untrusted, match="changed meanwhile"), ring.decrypt(file) as plain:
            assert text.startswith(plain.read())
    assert children() == before


def test_reading_takes_little_memory(keys: Keys, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.gpg"
    with seal(bundle, sign_with=keys.signer, encrypt_for=[keys.device], home=keys.home) as pipe:
        for _ in range(64):
            pipe.write(os.urandom(1 << 20))
    script = ("import resource, sys; from pathlib import Path; from fussy.gpg import open_keyring\n"
              "ring = open_keyring(Path(sys.argv[1])); file = open(sys.argv[2], 'rb')\n"
              "with ring as ring:\n"
              "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
              "    ring.verify(file, len)\n"
              "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n")
    done = subprocess.run([sys.executable, "-c", script, str(keys.keyring), str(bundle)], capture_output=True,
                          text=True, check=True, timeout=60)
    assert int(done.stdout) < 8 << 10, f"{done.stdout} KiB more"


def test_the_bundle_may_be_read_from_anywhere_before(keys: Keys, ring: Keyring, tmp_path: Path) -> None:
    (tmp_path / "bundle.gpg").write_bytes(sign(keys))
    with (tmp_path / "bundle.gpg").open("rb") as file:
        file.seek(100, io.SEEK_SET)
        assert ring.verify(file, len).fingerprint == keys.signer


def test_a_pipe_is_no_bundle(ring: Keyring) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader, "rb") as file, pytest.raises(SystemSetup, match="save it in a file first"):
        ring.verify(file, len)


def test_a_user_without_rights_can_verify(keys: Keys, tmp_path: Path) -> None:
    """With a temporary directory whose path is too long for sockets."""
    nobody = 65534
    keyring = keys.keyring_knowing()
    for path in (keyring, *keyring.rglob("*")):
        os.chown(path, nobody, nobody)
    (keys.place / "bundle.gpg").write_bytes(signed_and_encrypted(keys))
    deep = Path(tempfile.mkdtemp(prefix="d" * 90))
    command = ["setpriv", "--reuid", str(nobody), "--regid", str(nobody), "--clear-groups"]
    as_nobody = {**os.environ, "TMPDIR": str(deep), "HOME": "/nonexistent"}
    try:
        os.chown(deep, nobody, nobody)
        keys.place.chmod(0o711)
        if subprocess.run([*command, sys.executable, "-c", "import fussy.gpg"], cwd="/", env=as_nobody,
                          capture_output=True, check=False).returncode != 0:
            pytest.skip("another user cannot be used here, or cannot read this program")
        done = subprocess.run([*command, sys.executable, "-c", VERIFY, str(keyring), str(keys.place / "bundle.gpg")],
                              cwd="/", env=as_nobody, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == keys.signer
        assert os.listdir(deep) == []
    finally:
        keys.place.chmod(0o700)
        deep.rmdir()
