"""Change who may vouch for bundles on a device whose keyring is in use.

The file ``signers`` decides and is replaced last, in one step: until then a key that was added to the ring counts for
nothing, and a killed change leaves everything as it was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fussy import disk
from fussy.errors import SystemSetup
from fussy.gpg import SIGNERS, who_may_sign
from fussy.gpghome import RINGS, copy_keyring, key_tool, list_keys, private_home
from fussy.keys import import_one

_HEAD = "# Who may sign bundles for this device: one primary fingerprint a line.\n"


def missing(keyring: Path, public: Sequence[str]) -> list[str]:
    """Return the fingerprints of the armoured keys PUBLIC, one each, that may not vouch by a keyring. Changes nothing.

    :raises SystemSetup: the keyring can't be read, or a text is not one public key
    """
    with private_home() as home:
        allowed = _allowed(keyring, home)
        return [key.fingerprint for text in public if (key := import_one(home, text)).fingerprint not in allowed]


def allow(keyring: Path, public: Sequence[str], files: Mapping[str, bytes] | None = None) -> list[str]:
    """Let the keys of PUBLIC, one armoured text each, vouch too; return the fingerprints of the new ones.

    A keyring that is not there is made (mode 0700), without a key of the device's own.

    :param files: what else belongs into the directory by its name, such as ``root.json``; in place before the signers
    :raises SystemSetup: the keyring can't be read or written, or a text is not one public key
    """
    with private_home() as home:
        allowed = _allowed(keyring, home)
        added = [key for key in (import_one(home, text) for text in public) if key.fingerprint not in allowed]
        new = {name: (home / name).read_bytes() for name in RINGS if added and (home / name).exists()}
        names = {key.fingerprint: key.user_ids[0] if key.user_ids else "" for key in list_keys(home)}
    _write(keyring, {**new, **(files or {})})
    if added:
        _write_signers(keyring, [*allowed, *(key.fingerprint for key in added)], names)
    return [key.fingerprint for key in added]


def disallow(keyring: Path, fingerprints: Sequence[str]) -> None:
    """Let keys no longer vouch; they stay in the ring, where they count for nothing. Where nobody is left, nobody may.

    :raises SystemSetup: the keyring can't be read or written
    """
    with private_home() as home:
        allowed = _allowed(keyring, home)
        names = {key.fingerprint: key.user_ids[0] if key.user_ids else "" for key in list_keys(home)}
    if left := [one for one in allowed if one not in fingerprints]:
        if len(left) < len(allowed):
            _write_signers(keyring, left, names)
    elif allowed:
        _write(keyring, {SIGNERS: _HEAD.encode()})


def _allowed(keyring: Path, home: Path) -> list[str]:
    """Copy a keyring, if there is one, to HOME; return who may sign, sorted."""
    if not any((keyring / name).exists() for name in RINGS):
        key_tool(home).list_keys()  # has gpg make an empty ring
        return []
    copy_keyring(keyring, home)
    listed = keyring / SIGNERS
    if listed.exists() and listed.read_text(errors="replace") == _HEAD:
        return []
    return sorted(who_may_sign(keyring, home, list_keys(home)))


def _write_signers(keyring: Path, fingerprints: Sequence[str], names: Mapping[str, str]) -> None:
    lines = [f"{one}  # {names.get(one, '')}\n" for one in fingerprints]
    _write(keyring, {SIGNERS: (_HEAD + "".join(lines)).encode()})


def _write(keyring: Path, files: Mapping[str, bytes]) -> None:
    try:
        keyring.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            disk.replace_file(keyring / name, content)
    except OSError as error:
        raise SystemSetup(f"cannot change the keyring {keyring}: {error.strerror}: {error.filename}") from error
