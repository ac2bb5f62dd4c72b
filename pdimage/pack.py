"""``pdimage pack``: builds an image and packs its tree into a signed bundle, as ``fussy-pack`` does."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fussy import pack as fussy_pack
from pdimage import scratch
from pdimage.build import Progress, build
from pdimage.description import Image


def pack(
    image: Image, output: Path, *, cache: Path, encrypt_for: Sequence[str] = (), sign_with: str | None = None,
    compress: str = "zstd", passphrase_file: Path | None = None, building: Progress = lambda step: None,
    packing: Callable[[int, int], object] | None = None,
) -> Path:
    """Build IMAGE and pack it into the directory OUTPUT; return the bundle. The other arguments are fussy-pack's.

    :raises FussyError: as :func:`pdimage.build.build` and :func:`fussy.pack.pack` do; no bundle is left then
    """
    output.mkdir(parents=True, exist_ok=True)
    with scratch.directory(cache, "pack") as place:
        built = build(image, place / image.name, cache=cache, progress=building)
        return Path(fussy_pack.pack(
            built.tree, encrypt_for=encrypt_for, sign_with=sign_with, compress=compress, output=output,
            passphrase_file=passphrase_file, progress=packing))
