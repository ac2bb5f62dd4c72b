"""``pdimage pack``: builds an image and packs its tree into a signed bundle, as ``fussy-pack`` does."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fussy import pack as fussy_pack
from pdimage import record, scratch
from pdimage.build import Progress, build
from pdimage.description import Image


def pack(
    image: Image, output: Path, *, cache: Path, engine: str | None = None, encrypt_for: Sequence[str] = (),
    sign_with: str | None = None, compress: str = "zstd", passphrase_file: Path | None = None,
    building: Progress = lambda step: None, packing: Callable[[int, int], object] | None = None,
) -> Path:
    """Build IMAGE and pack it into the directory OUTPUT; return the bundle. The other arguments are fussy-pack's.

    Beside the bundle lie the list of its parts, their licences, and the record of the build.

    :raises FussyError: as :func:`pdimage.build.build` and :func:`fussy.pack.pack` do; no bundle is left then
    """
    started = datetime.now(UTC)
    output.mkdir(parents=True, exist_ok=True)
    with scratch.directory(cache, "pack") as place:
        built = build(image, place / image.name, cache=cache, engine=engine, progress=building)
        bundle = Path(fussy_pack.pack(
            built.tree, encrypt_for=encrypt_for, sign_with=sign_with, compress=compress, output=output,
            passphrase_file=passphrase_file, progress=packing))
        record.write_beside(bundle, built.tree, started)
    return bundle
