"""Bundle a directory as a signed firmware (command ``fussy-pack``; fussy documents, section 4.2)."""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fussy import manifest
from fussy.errors import BadBundle, SystemSetup

if TYPE_CHECKING:
    import click

    from fussy import tree

# Told how many bytes of how many are done.
Progress = Callable[[int, int], object]


def pack(
    root_dir: str | Path,
    excludes: Iterable[str] | None = None,
    encrypt_for: str | Sequence[str] | None = None,
    *,
    sign_with: str | None = None,
    compress: str = "gzip",
    version: str | None = None,
    compatible: Sequence[str] = (),
    output: Path | None = None,
    passphrase_file: Path | None = None,
    base: Path | None = None,
    memory: int = 8,
    progress: Progress | None = None,
) -> str:
    """Bundle the directory ROOT_DIR into a signed firmware file and return its absolute name.

    The name of the directory becomes the name of the bundle and of the release on the device. EXCLUDES are patterns as
    tar's ``--exclude`` takes them. ENCRYPT_FOR names the keys (id, fingerprint or unique e-mail) of those who can open
    it; without it the bundle is signed only. SIGN_WITH is the key that signs (gpg's default key otherwise), COMPRESS
    ``gzip`` or ``zstd``. VERSION and COMPATIBLE go before what the tree's ``.fussy/release.json`` says. OUTPUT is the
    directory of the bundle (otherwise a new temporary one). With BASE, the directory of an older release with its
    manifest, a delta is made in place of a full bundle: it installs the same release on devices that have the older one
    and allow it MEMORY MiB (default 8, see fussy.patch). Keys come from ``GNUPGHOME``. The bundle appears under its
    name only when it is complete.

    :raises BadBundle: the tree can't be a firmware (its name, its description, device nodes that it does not announce).
    :raises SystemSetup: no such directory, no such key, no gpg.
    """
    from fussy import frames, gpg, pieces, tree

    root = Path(os.path.realpath(root_dir))
    if not root.is_dir():
        raise SystemSetup(f"cannot pack {root_dir}: not a directory; name the directory of the firmware with -r")
    if compress not in frames.FORMATS:
        raise SystemSetup(f"cannot pack with {compress!r}: choose one of {', '.join(frames.FORMATS)}")
    if wrong := manifest.check_name(root.name):
        raise BadBundle(f"cannot pack {root}: {wrong[0]}")
    recipients = [encrypt_for] if isinstance(encrypt_for, str) else list(encrypt_for or ())
    found = tree.scan(os.fsencode(root), excludes=excludes or ())
    described = manifest.encode(describe(root.name, found, version=version, compatible=compatible))
    manifest.decode(described)  # what the device would refuse is refused here
    directory = output or Path(tempfile.mkdtemp(prefix="fussy-", suffix="-pack"))
    if base:
        from fussy import delta

        old = delta.base_release(base)
        suffix, stream = delta.suffix(old), delta.stream(old, root.name, described, found, memory)
    else:
        chosen = frames.FORMATS[compress]
        packed = pieces.compressed(pieces.cut(root.name, described, found), chosen.compress)
        suffix, stream = chosen.suffix, ((piece.size, frame) for piece, frame in packed)
    bundle = directory.absolute() / (root.name + suffix)
    total = manifest.total_size(item.entry for item in found)
    try:
        with gpg.seal(bundle, sign_with=sign_with, encrypt_for=recipients, passphrase_file=passphrase_file) as sealed:
            done = 0
            for size, part in stream:
                sealed.write(part)
                done += size
                if progress:
                    progress(min(done, total), total)
    except BaseException:
        if output is None:
            directory.rmdir()
        raise
    return str(bundle)


def describe(
    name: str, found: Sequence["tree.Found"], *, version: str | None, compatible: Sequence[str]
) -> manifest.Manifest:
    """Return the manifest of a tree: its ``.fussy/release.json``, if it has one, with VERSION and COMPATIBLE put in."""
    description = manifest.Description()
    for item in found:
        if item.entry.name == manifest.DESCRIPTION and item.entry.type == "file":
            description = manifest.decode_description(Path(os.fsdecode(item.file)).read_bytes())
    facts = msgspec.structs.asdict(description)
    if version is not None:
        facts["version"] = version
    if compatible:
        facts["compatible"] = list(compatible)
    return manifest.Manifest(**facts, name=name, entries=[item.entry for item in found])


def get_options() -> "click.Command":
    """Return the command line of ``fussy-pack``."""
    from fussy.cli import pack_command

    return pack_command


def main() -> None:
    """Run ``fussy-pack``: parse the arguments, bundle, print the name of the bundle last."""
    get_options()()
