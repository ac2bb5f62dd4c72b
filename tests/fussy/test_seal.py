"""Messages that the build side writes: complete and signed by the right key, or not there."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fussy import gpg
from fussy.errors import FussyError, SystemSetup
from fussy.gpg import open_keyring, seal

if TYPE_CHECKING:
    from tests.fussy.conftest import Keys


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in cron: there may be a terminal around the tests."""
    monkeypatch.setattr(gpg, "has_terminal", lambda: False)


@pytest.fixture(scope="module")
def protected(keys: Keys) -> Iterator[Path]:
    """A build machine's ring whose only signing key has the pass-phrase of the file ``phrase`` in it."""
    home = keys.directory("protected")
    (home / "phrase").write_text("geheim und \u00fcberlang\n")
    keys.gpg("--passphrase-file", str(home / "phrase"), "--quick-generate-key", "Careful <careful@example.org>",
             "ed25519", "sign", home=home)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


def test_the_default_key_is_the_first_that_can_sign(keys: Keys, tmp_path: Path) -> None:
    with seal(tmp_path / "a.gpg", home=keys.home) as pipe:
        pipe.write(b"text")
    with open_keyring(keys.keyring) as ring, (tmp_path / "a.gpg").open("rb") as file:
        assert ring.verify(file, len).fingerprint == keys.signer


def test_plain_gpg_opens_it(keys: Keys, tmp_path: Path) -> None:
    with seal(tmp_path / "a.gpg", sign_with=keys.signer, encrypt_for=[keys.device], home=keys.home) as pipe:
        pipe.write(b"text")
    done = keys.gpg("--decrypt", "--status-fd", "2", str(tmp_path / "a.gpg"), home=keys.keyring)
    assert done.stdout == b"text"
    assert b"DECRYPTION_INFO 2 9" in done.stderr, "protected from changes, AES256"
    assert b" 8 00 " in done.stderr, "SHA256 over binary data"


def test_every_recipient_can_open_it(keys: Keys, tmp_path: Path) -> None:
    with seal(tmp_path / "a.gpg", encrypt_for=[keys.device, keys.stranger], home=keys.home) as pipe:
        pipe.write(b"text")
    assert keys.gpg("--decrypt", str(tmp_path / "a.gpg")).stdout == b"text"
    with open_keyring(keys.keyring) as ring, (tmp_path / "a.gpg").open("rb") as file:
        assert ring.verify(file, len).fingerprint == keys.signer


def test_a_replaced_file_is_replaced_at_once(keys: Keys, tmp_path: Path) -> None:
    bundle = tmp_path / "a.gpg"
    bundle.write_bytes(b"old")
    with seal(bundle, home=keys.home) as pipe:
        pipe.write(b"text")
        assert bundle.read_bytes() == b"old"
    assert bundle.read_bytes() != b"old"


def test_after_an_exception_nothing_is_there(keys: Keys, tmp_path: Path) -> None:
    for closed in (False, True):
        with pytest.raises(KeyError), seal(tmp_path / "a.gpg", home=keys.home) as pipe:
            pipe.write(bytes(3 << 20))
            if closed:  # gpg ends well then, but what was packed is not what was meant
                pipe.close()
            raise KeyError("the tree changed")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("settings", "reason"), [
    ({"sign_with": "nobody@example.org"}, "sign with 'nobody@example.org': there is no such key"),
    ({"sign_with": "Signer"}, "key id, fingerprint or e-mail address"),
    ({"sign_with": "device@example.org"}, "sign with 'device@example.org': there is no such key"),
    ({"encrypt_for": ["DEADBEEF"]}, "encrypt for 'DEADBEEF': there is no such key"),
    ({"encrypt_for": ["signer@example.org"]}, "is not made to encrypt for"),
    ({"encrypt_for": ["--output=/tmp/x"]}, "key id, fingerprint or e-mail address"),
    ({"encrypt_for": ["device@example.org", "DEADBEEF"]}, "no such key"),
])
def test_keys_that_cannot_be_used_are_said_before_anything_is_written(
        keys: Keys, tmp_path: Path, settings: dict[str, str | list[str]], reason: str) -> None:
    with pytest.raises(SystemSetup, match=reason), seal(tmp_path / "a.gpg", home=keys.home, **settings):
        pytest.fail("began to write")
    assert os.listdir(tmp_path) == []


def test_expired_and_ambiguous_keys_are_refused(keys: Keys, tmp_path: Path) -> None:
    home = keys.directory("messy")
    keys.make("Old <old@example.org>", home=home, expires="1d", encrypts=True, at="-9d")
    twin = keys.make("Twin <twin@example.org>", home=home)
    keys.gpg("--quick-generate-key", "Other <twin@example.org>", "ed25519", "sign", home=home)
    for settings, reason in (({"sign_with": "old@example.org"}, "has expired"),
                             ({"encrypt_for": ["old@example.org"]}, "has expired"),
                             ({"sign_with": "twin@example.org"}, f"several keys.*{twin}")):
        with pytest.raises(SystemSetup, match=reason), seal(tmp_path / "a.gpg", home=home, **settings):
            pytest.fail("began to write")
    empty = keys.directory("nothing")
    with pytest.raises(SystemSetup, match="no secret key that can; make one"), seal(tmp_path / "a.gpg", home=empty):
        pytest.fail("began to write")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_said(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(SystemSetup, match="cannot write .*No such file or directory"), \
            seal(tmp_path / "no" / "a.gpg", home=keys.home):
        pytest.fail("began to write")


def test_a_dying_gpg_is_the_reason_and_not_the_broken_pipe(keys: Keys, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gpg").write_text('#!/bin/sh\ncase "$*" in *--sign*) head -c 99 >/dev/null; echo gpg: out of luck >&2;'
                                  f' exit 2;; esac\nexec {shutil.which("gpg")} "$@"\n')
    (programs / "gpg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(FussyError, match=r"a\.gpg: gpg failed \(gpg says: out of luck\)"), \
            seal(tmp_path / "a.gpg", home=keys.home) as pipe:
        for _ in range(9):
            pipe.write(bytes(1 << 20))
    assert os.listdir(tmp_path) == ["bin"]


def test_a_full_disk_leaves_nothing(keys: Keys, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace to be had: run as root")
    script = ("import os, sys; from pathlib import Path\n"
              "from fussy.errors import FussyError; from fussy.gpg import seal\n"
              "try:\n"
              "    with seal(Path(sys.argv[1]) / 'a.gpg', home=Path(sys.argv[2])) as pipe: pipe.write(bytes(4 << 20))\n"
              "except FussyError as error: print(error)\n"
              "print(os.listdir(sys.argv[1]))\n")
    shell = f'mount -t tmpfs -o size=1m none {tmp_path} && exec "$@"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", shell, "sh", sys.executable, "-c", script, str(tmp_path),
                           str(keys.home)], capture_output=True, text=True, check=True, timeout=60)
    assert "No space left on device" in done.stdout
    assert done.stdout.endswith("[]\n")


# --- pass-phrases -----------------------------------------------------------------------------------------------------


def test_a_pass_phrase_comes_from_a_file(protected: Path, tmp_path: Path) -> None:
    with seal(tmp_path / "a.gpg", home=protected, passphrase_file=protected / "phrase") as pipe:
        pipe.write(b"text")
    assert (tmp_path / "a.gpg").exists()


@pytest.mark.usefixtures("no_terminal")
def test_without_a_pass_phrase_the_reason_is_said_at_once(keys: Keys, protected: Path, tmp_path: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", str(protected), "--kill", "gpg-agent"], check=True)
    (tmp_path / "wrong").write_text("nonsense\n")
    start = time.monotonic()
    for file, reason in ((None, "its pass-phrase is needed; run this on a terminal, or give a file with --passphrase"),
                         (tmp_path / "wrong", "the pass-phrase is wrong"),
                         (tmp_path / "missing", "cannot read the pass-phrase file .*No such file")):
        with pytest.raises(SystemSetup, match=reason), \
                seal(tmp_path / "a.gpg", home=protected, passphrase_file=file):
            pytest.fail("began to write")
    assert time.monotonic() - start < 20
    assert os.listdir(tmp_path) == ["wrong"]


SEAL = """
import sys; from pathlib import Path; from fussy.gpg import seal
with seal(Path(sys.argv[1]), home=Path(sys.argv[2])) as pipe:
    print("packing", flush=True)
    pipe.write(b"text")
print("done", flush=True)
"""


def test_on_a_terminal_gpg_asks_before_the_packing(keys: Keys, protected: Path, tmp_path: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", str(protected), "--kill", "gpg-agent"], check=True)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", SEAL, str(tmp_path / "a.gpg"), str(protected)])
    said = b""
    answered = False
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            block = os.read(terminal, 1024)
        except OSError:  # the other side has ended
            break
        said += block
        if b"assphrase" in said and not answered:
            answered = True
            assert b"packing" not in said
            while termios.tcgetattr(terminal)[3] & termios.ECHO:  # gpg drops what was typed before it hides it
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.write(terminal, (protected / "phrase").read_bytes())
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, said
    assert said.count(b"assphrase:") == 1
    assert b"packing" in said
    assert b"done" in said
    assert (tmp_path / "a.gpg").exists()
