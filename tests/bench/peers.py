"""What other ways to update send to a device that has the old tree: each function returns a :class:`Sent`."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trees import contents

_CHUNK = 4096  # of RAUC's block index
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Sent:
    """Bytes to fetch, and the seconds it took to make them."""

    name: str
    size: int
    seconds: float


Files = list[tuple[Path | None, Path]]


def changed(old: Path, new: Path) -> Files:
    """Return (old file or None, new file) of each content that the tree OLD does not have."""
    before, after = contents(old), contents(new)
    there = {digest for _, digest, _ in before.values()}
    return [(old / name if name in before else None, new / name)
            for name, (_, digest, _) in after.items() if digest not in there]


@cache
def _zstd(old: Path | None, new: Path) -> int:
    """Return the size of what ``zstd -19 --patch-from`` makes of one file."""
    since = [f"--patch-from={old}"] if old else []
    return len(subprocess.run(["zstd", "-19", "--long=27", "-q", "-c", *since, new], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def _bsdiff(old: Path | None, new: Path) -> int:
    """Return the size of the smaller of a bsdiff patch of one file and the file with ``zstd -19``."""
    import bsdiff4

    whole = _zstd(None, new)
    return min(whole, len(bsdiff4.diff(old.read_bytes(), new.read_bytes()))) if old else whole


def _summed(name: str, way: Callable[[Path | None, Path], int], files: Files) -> Sent:
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        size = sum(pool.map(way, *zip(*files, strict=True)))
    return Sent(name, size, time.monotonic() - start)


def zstd_patches(files: Files) -> Sent:
    return _summed("zstd -19 --patch-from, each file", _zstd, files)


def bsdiff_patches(files: Files) -> Sent:
    return _summed("bsdiff, each file", _bsdiff, files)


def ostree(old: Path, new: Path, place: Path) -> Sent:
    """Measure OSTree's static delta. The repository holds plain files: what a delta has does not depend on that."""
    repo = place / "repo"
    subprocess.run(["ostree", f"--repo={repo}", "init", "--mode=bare"], check=True)
    for tree in (old, new):
        subprocess.run(["ostree", f"--repo={repo}", "commit", "-b", "main", f"--tree=dir={tree}", "--owner-uid=0",
                        "--owner-gid=0"], check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    subprocess.run(["ostree", f"--repo={repo}", "static-delta", "generate", "main"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Sent("OSTree static delta", _size_of(repo / "deltas"), time.monotonic() - start)


def casync(old: Path, new: Path, place: Path) -> Sent:
    """Measure the chunks of casync that the old tree does not have, and the index (default chunk size and zstd)."""
    store = place / "store.castr"

    def make(tree: Path, index: Path) -> None:
        subprocess.run(["casync", "make", "--compression=zstd", f"--store={store}", index, tree], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    make(old, place / "old.caidx")
    before = _size_of(store)
    start = time.monotonic()
    make(new, place / "new.caidx")
    size = _size_of(store) - before + (place / "new.caidx").stat().st_size
    return Sent("casync, missing chunks", size, time.monotonic() - start)


def rauc(old: Path, new: Path, place: Path) -> Sent:
    """Measure RAUC's adaptive update with ``block-hash-index``: the index, and the blocks of the image it lacks.

    The indexes are those that ``rauc bundle`` writes. What a device fetches with them is computed: missing blocks and
    the index, compressed together, which is less than the ranges of the bundle that it would really ask for.
    """
    start = time.monotonic()
    key, certificate = place / "key.pem", place / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-subj", "/CN=bench", "-days", "2"], check=True, stderr=subprocess.DEVNULL)
    images = [_rauc_image(tree, place / f"rauc-{tree.name}", key, certificate) for tree in (old, new)]
    there, wanted = (_digests(image) for image in images)
    known = set(there)
    packer = subprocess.Popen(["zstd", "-q", "-3", "-c"], stdin=subprocess.PIPE, stdout=(place / "sent").open("wb"))
    assert packer.stdin is not None
    with images[1].open("rb") as image:
        packer.stdin.write(b"".join(wanted))
        for i, digest in enumerate(wanted):
            if digest not in known:
                known.add(digest)
                packer.stdin.write(os.pread(image.fileno(), _CHUNK, i * _CHUNK))
    packer.stdin.close()
    if packer.wait():
        raise OSError("zstd failed")
    return Sent("RAUC block-hash-index (ext4)", (place / "sent").stat().st_size, time.monotonic() - start)


def _rauc_image(tree: Path, folder: Path, key: Path, certificate: Path) -> Path:
    """Bundle TREE as an ext4 image; return the image, beside which rauc has written its index."""
    folder.mkdir()
    image = folder / "rootfs.ext4"
    with image.open("wb") as file:
        file.truncate(600 << 20)
    identity = "00000000-0000-0000-0000-000000000001"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-U", identity, "-E", f"hash_seed={identity}", "-d", tree,
                    image], check=True)
    (folder / "manifest.raucm").write_text(
        "[update]\ncompatible=bench\nversion=1\n[bundle]\nformat=verity\n"
        "[image.rootfs]\nfilename=rootfs.ext4\nadaptive=block-hash-index\n")
    subprocess.run(["rauc", f"--cert={certificate}", f"--key={key}", "--mksquashfs-args=-comp lz4 -quiet", "bundle",
                    folder, folder.with_suffix(".raucb")], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return image


def _digests(image: Path) -> list[bytes]:
    index = image.with_name(image.name + ".block-hash-index").read_bytes()
    return [index[i:i + _DIGEST] for i in range(0, len(index), _DIGEST)]


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
