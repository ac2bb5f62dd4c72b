"""What building images takes, as JSON: ``python tests/bench/images.py FOLDER`` (root, pip's index, a Docker engine).

Two questions, three pairs of runs each, with an empty cache each time:

- the router of the demo with all example chutes: building it again with one of them changed, beside the first build,
  which fetches wheels and builds containers;
- a large image (the tree firmware-1 in FOLDER, the runtime, a chute's image archive), without Docker and with wheels
  that are here, beside ``cp -a`` and ``sha256sum`` of the files of its tree.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median

from report import Check

from fussy import disk

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "pdimage/images/router.lock"
CHANGED = "visitor-counter/www/index.html"
ROUNDS = 3
REBUILD_LIMIT = 20.0  # per cent
COPY_LIMIT = 2.0


def seconds(place: Path, *argv: str | Path, **environment: str) -> float:
    """Run a command that writes into PLACE and return how long it took; what was written before is on disk by then."""
    disk.sync_filesystem(place)
    start = time.monotonic()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   env={**os.environ, **environment})
    return time.monotonic() - start


@contextmanager
def engine() -> Iterator[str]:
    """Have a new Docker engine with the base images, in a machine of its own (scripts/demo-machine); yield its URL."""
    place = Path(tempfile.mkdtemp(prefix="bench-images-"))  # short: a socket lies in it
    url = f"unix://{place}/run/docker.sock"
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([ROOT / "scripts/demo-machine", place, f"/{place.name}"], stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"no Docker engine runs here: {(place / 'log').read_text()[-500:]}")
            if subprocess.run(["docker", "-H", url, "version"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        subprocess.run([ROOT / "scripts/base-images"], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "DOCKER_HOST": url})
        yield url
    finally:
        process.kill()  # and with it all processes of that machine
        process.wait()
        for group in sorted(Path("/sys/fs/cgroup").rglob(f"*{place.name}*"), reverse=True):
            with suppress(OSError):
                group.rmdir()
        shutil.rmtree(place, ignore_errors=True)


def build(image: Path, output: Path, cache: Path, *more: str | Path, **environment: str) -> float:
    """Build an image and return how long it took."""
    argv = [sys.executable, "-m", "pdimage", "build", image, "-o", output, "--cache", cache, *more]
    return seconds(output.parent, *argv, **environment)


def wheels(place: Path) -> Path:
    """Fetch what the router's lock names."""
    subprocess.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps",
                    "--require-hashes", "-r", LOCK, "-d", place], check=True)
    return place


def describe(place: Path, name: str, chutes: Sequence[dict[str, object]], **more: object) -> Path:
    """Write a description into PLACE and return it."""
    document = {"name": name, "version": "1", "chutes": chutes, "platform": {"requirements": str(LOCK)}, **more}
    file = place / f"{name}.yaml"
    file.write_text(json.dumps(document))
    return file


def rebuild(place: Path) -> tuple[float, float]:
    """Return the seconds of the first build, by an engine that has built nothing, and of one with a changed chute."""
    chutes = place / "chutes"
    shutil.copytree(ROOT / "pdimage/chutes", chutes, dirs_exist_ok=True)
    image = describe(place, "router", [{"path": str(path.parent)} for path in sorted(chutes.glob("*/Dockerfile"))])
    with engine() as url, tempfile.TemporaryDirectory(dir=place) as cache:
        first = build(image, place / "router", Path(cache), "--engine", url, PIP_NO_CACHE_DIR="1")
        page = chutes / CHANGED
        page.write_text(f"{page.read_text()}<p>Changed\n")
        second = build(image, place / "router", Path(cache), "--engine", url)
    return first, second


def archive(place: Path) -> Path:
    """Make a chute's image archive, as ``docker save`` does."""
    file = place / "busybox.tar"
    with engine() as url:
        subprocess.run(["docker", "-H", url, "save", "-o", file, "busybox"], check=True)
    return file


def copied(tree: Path, copy: Path) -> float:
    """Return how long it takes to copy and to hash the files of a tree with plain tools."""
    shutil.rmtree(copy, ignore_errors=True)
    script = 'cp -a "$0" "$1"; find "$1" -type f -print0 | xargs -0 sha256sum'
    return seconds(copy.parent, "bash", "-euc", script, tree, copy)


def large(place: Path, image: Path) -> tuple[float, float]:
    """Return how long building the large image took, and copying and hashing its tree."""
    shutil.rmtree(place / "large", ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place) as cache:
        built = build(image, place / "large", Path(cache), DOCKER_HOST="unix:///nowhere")
    return built, copied(place / "large", place / "copy")


def checks(folder: Path) -> list[Check]:
    """Measure in FOLDER, which has the trees (see trees.py)."""
    with tempfile.TemporaryDirectory(prefix="images-", dir=folder) as directory:
        place = Path(directory)
        again = [rebuild(place) for _ in range(ROUNDS)]
        image = describe(place, "large", [{"name": "box", "archive": str(archive(place))}],
                         overlay=[str(folder / "firmware-1")],
                         platform={"requirements": str(LOCK), "wheels": str(wheels(place / "wheels"))})
        built = [large(place, image) for _ in range(ROUNDS)]
        size = sum(path.stat().st_size for path in (place / "large").rglob("*") if path.is_file()
                   and not path.is_symlink())
    for name, pairs in (("image: first build, rebuild", again), ("large image: build, cp -a and sha256sum", built)):
        print(f"{name}: {', '.join(f'{one:.2f} s {two:.2f} s' for one, two in pairs)}", file=sys.stderr)
    return [
        Check("image: 1 chute changed / first build", median(100 * two / one for one, two in again), "%",
              REBUILD_LIMIT),
        Check(f"image of {size / 1e6:.0f} MB: build / cp -a, sha256", median(one / two for one, two in built), "x",
              COPY_LIMIT),
    ]


if __name__ == "__main__":
    json.dump([asdict(check) for check in checks(Path(sys.argv[1]).resolve())], sys.stdout)
