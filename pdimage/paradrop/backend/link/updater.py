"""What provisioning writes for the firmware's updater: whom to believe, and whom to ask.

In its settings lie two blocks between marks, and nothing outside them is touched; a part that the owner wrote himself
stays as it is::

    # >>> from the server, as pd.joe.aardvark
    product = "router"
    sources = ["https://updates.example.org/channel"]
    authority = "/var/lib/paradrop/keys/authority.pem"
    # <<<
    …what the owner wrote…
    # >>> from the server, as pd.joe.aardvark
    [hawkbit]
    …
    # <<<
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from fussy import disk, signers
from fussy.updating import settings as owners
from paradrop.backend.link.asking import Channel, Given, Hawkbit
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq

_BLOCK = re.compile(r"^# >>> from the server, as .*\n(?:.*\n)*?# <<<\n", re.MULTILINE)


def token_file() -> Path:
    """Return where the token for roll-outs is kept."""
    return Path(settings.CONFIG_HOME_DIR) / "keys/update-token"


def certificate_file() -> Path:
    """Return where the certificate of the server is kept for the updater, if it is pinned."""
    return Path(settings.CONFIG_HOME_DIR) / "keys/server.pem"


def authority_file() -> Path:
    """Return where the updater finds who else may vouch for a channel by https: the server's authority, and the server
    if it is pinned."""
    return Path(settings.CONFIG_HOME_DIR) / "keys/authority.pem"


def compose(text: str, given: Given, pinned: str) -> tuple[str, list[str]]:
    """Return the updater's settings with what the server gives, and what of it the owner has settled otherwise.

    ``pinned``: the server's certificate (PEM), empty where an authority vouches for it.

    Raises:
        ParadropError: the text, which may be the owner's, is no TOML, or the result cannot be used.
    """
    kept = _BLOCK.sub("", text)
    own, notes = _parse(kept), []
    head = tail = ""
    if given.channel and (own.keys() & {"sources", "product", "on_demand"} or not given.channel.product):
        notes.append("the updater goes on with the channel that its settings name")
    elif given.channel:
        head = _block(given.pdid, _channel(given.channel) + _authority(given.channel) * ("authority" not in own))
    if given.hawkbit and "hawkbit" in own:
        notes.append("the updater goes on with the roll-outs that its settings name")
    elif given.hawkbit:
        tail = _block(given.pdid, _hawkbit(given.hawkbit, pinned))
    made = head + kept + "\n" * bool(kept and tail and not kept.endswith("\n")) + tail
    if made != kept and (mistakes := owners.parse(_parse(made))[1]):
        raise ParadropError(f"cannot use {settings.FIRMWARE_SETTINGS} with what the server gives: "
                            + "; ".join(mistakes))
    return made, notes


def check(given: Given, pinned: str) -> list[str]:
    """Return what :func:`write` will leave as the owner or the firmware has it.

    Raises:
        ParadropError: the settings cannot be used.
    """
    _, notes = compose(_settings()[1], given, pinned)
    if given.keyring and keeps_its_keys():
        notes.append("bundles are verified by the keys of the firmware, as before")
    return notes


def keeps_its_keys() -> bool:
    """Tell whether the keyring is part of a release: then the firmware alone says whom to believe."""
    return Path(settings.FIRMWARE_KEYRING).resolve().is_relative_to(Path(settings.FIRMWARE_TARGET).resolve())


def write(given: Given, pinned: str) -> None:
    """Write the token, the certificate, the keys and the settings, each in one step; may be done again.

    Raises:
        ParadropError: the settings cannot be used.
        SystemSetup: the keyring cannot be written.
        OSError: the disk is full or cannot be written.
    """
    file, text = _settings()
    made, _ = compose(text, given, pinned)
    if given.hawkbit:
        disk.replace_file(token_file(), given.hawkbit.token.encode())
        disk.replace_file(certificate_file(), pinned.encode())
    if given.channel:
        disk.replace_file(authority_file(), "\n".join((given.authority, pinned)).encode())
    if not keeps_its_keys() and given.keyring:
        root = {"root.json": given.channel.root.encode()} if given.channel and _channel(given.channel) in made else {}
        signers.allow(Path(settings.FIRMWARE_KEYRING), given.keyring, root)
    _replace(file, text, made)


def remove(fingerprints: Sequence[str]) -> None:
    """Take back what :func:`write` wrote; the keys named vouch no more. Errors are those of :func:`write`."""
    file, text = _settings()
    _replace(file, text, _BLOCK.sub("", text))
    if fingerprints and not keeps_its_keys():
        signers.disallow(Path(settings.FIRMWARE_KEYRING), fingerprints)
    for file in (token_file(), certificate_file(), authority_file()):
        file.unlink(missing_ok=True)


def _settings() -> tuple[Path, str]:
    file = Path(settings.FIRMWARE_SETTINGS)
    try:
        return file, file.read_text()
    except FileNotFoundError:
        return file, ""
    except (OSError, UnicodeDecodeError) as error:
        raise ParadropError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _replace(file: Path, old: str, new: str) -> None:
    if new == old:
        return
    if not new:
        file.unlink(missing_ok=True)
        return
    pdosq.makedirs(file.parent)
    pdosq.replaceFile(file, new.encode())


def _parse(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParadropError(f"cannot read {settings.FIRMWARE_SETTINGS}: {error}; mend it and try again") from error


def _block(pdid: str, lines: str) -> str:
    return f"# >>> from the server, as {pdid}\n{lines}# <<<\n"


def _channel(channel: Channel) -> str:
    return f"product = {_quoted(channel.product)}\nsources = [{_quoted(channel.url)}]\n"


def _authority(channel: Channel) -> str:
    return f"authority = {_quoted(str(authority_file()))}\n" if channel.url.startswith("https:") else ""


def _hawkbit(hawkbit: Hawkbit, pinned: str) -> str:
    values = {"url": hawkbit.url, "tenant": hawkbit.tenant, "name": hawkbit.name, "token_file": str(token_file()),
              **({"certificate": str(certificate_file())} if pinned else {})}
    return "[hawkbit]\n" + "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
