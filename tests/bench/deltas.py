"""Measures deltas on the pair of releases: size beside other ways, and installing one beside the full bundle."""

import argparse
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from disk import Disk, cool, own_mounts
from homes import keys
from main import stop
from measure import Usage, run_script
from trees import contents, pair

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
PACK = ('export GNUPGHOME=$BUILD; fussy-pack "$TREES/{tree}" -z zstd -k "$SIGNER" -e "$READER" -o "$OUT" {more} '
        '--compatible bench')
INSTALLER = 'fussy-install -k "$DEVICE" -t "$DISK/t" -b bench -l "$OUT/log" "{bundle}"'


def changed(trees: Path) -> list[tuple[Path | None, Path]]:
    """Return (old file or None, new file) of each content that the old tree does not have."""
    old, new = contents(trees / "firmware-1"), contents(trees / "firmware-2")
    there = {digest for _, digest, _ in old.values()}
    return [(trees / "firmware-1" / name if name in old else None, trees / "firmware-2" / name)
            for name, (_, digest, _) in new.items() if digest not in there]


def zstd_patch(files: tuple[Path | None, Path]) -> int:
    """Return the size of what ``zstd -19 --patch-from`` makes of one file."""
    old, new = files
    since = [f"--patch-from={old}"] if old else []
    return len(subprocess.run(["zstd", "-19", "--long=27", "-q", "-c", *since, new], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def bsdiff_patch(files: tuple[Path | None, Path]) -> int:
    """Return the size of the smaller of a bsdiff patch of one file and the file with ``zstd -19``."""
    import bsdiff4

    old, new = files
    whole = zstd_patch((None, new))
    return min(whole, len(bsdiff4.diff(old.read_bytes(), new.read_bytes()))) if old else whole


def summed(way: str, files: list[tuple[Path | None, Path]]) -> tuple[str, int, float]:
    """Return the name of a way, the sum of its patches, and how long it took on two cores."""
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        size = sum(pool.map({"zstd": zstd_patch, "bsdiff": bsdiff_patch}[way], files))
    name = {"zstd": "zstd -19 --patch-from, each file", "bsdiff": "bsdiff, each file"}[way]
    return name, size, time.monotonic() - start


def ostree(trees: Path, disk: Disk) -> tuple[str, int, float]:
    """Return the size of OSTree's static delta between the two trees, and how long it took."""
    repo = disk.mount / "repo"
    script = f'''ostree --repo={repo} init --mode=archive
        for tree in firmware-1 firmware-2; do
            ostree --repo={repo} commit -b main --tree=dir="{trees}/$tree" --owner-uid=0 --owner-gid=0 >/dev/null
        done'''
    subprocess.run(["bash", "-euc", script], check=True)
    start = time.monotonic()
    subprocess.run(["ostree", f"--repo={repo}", "static-delta", "generate", "main"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    taken = time.monotonic() - start
    size = sum(path.stat().st_size for path in (repo / "deltas").rglob("*") if path.is_file())
    return "OSTree static delta", size, taken


def installed(disk: Disk, env: dict[str, str], log: Path, first: str, then: str) -> Usage:
    """Install THEN over FIRST on a fresh disk, with a cold cache."""
    disk.renew()
    run_script(INSTALLER.format(bundle=first), env, log)
    disk.settle()
    cool()
    before = disk.written()
    usage = run_script(INSTALLER.format(bundle=then) + '; sync -f "$DISK"', env, log)
    return Usage(usage.seconds, usage.cpu, usage.memory, disk.written() - before, os.path.getsize(then))


def main() -> None:
    """Measure and print; exit code 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=3, help="paired installs (default: 3)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where the trees are")
    parser.add_argument("--sizes", action="store_true", help="leave out installing")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    own_mounts()
    trees: Path = options.folder
    print(pair(trees))
    with keys() as environment, Disk(trees) as disk:
        out = disk.mount.parent / f"{disk.mount.name}-bundles"
        out.mkdir()
        env = environment | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(out), "LC_ALL": "C.UTF-8",
                             "TREES": str(trees), "DISK": str(disk.mount), "OUT": str(out)}
        try:
            sys.exit(measure(trees, disk, env, out, options.rounds, sizes_only=options.sizes))
        finally:
            subprocess.run(["rm", "-rf", out], check=True)


def measure(trees: Path, disk: Disk, env: dict[str, str], out: Path, rounds: int, *, sizes_only: bool) -> bool:
    """Print the sizes and the times; return whether a target was missed."""
    log = trees / "last-job.log"
    for tree in ("firmware-1", "firmware-2"):
        run_script(PACK.format(tree=tree, more=""), env, log)
    first, full = (str(out / f"{tree}.tar.zst.gpg") for tree in ("firmware-1", "firmware-2"))
    run_script(INSTALLER.format(bundle=first), env, log)
    start = time.monotonic()
    run_script(PACK.format(tree="firmware-2", more='-B "$DISK/t/firmware-1"'), env, log)
    made = next(map(str, out.glob("*.delta.gpg")))
    taken = time.monotonic() - start
    missed = False
    if not sizes_only:  # first, for a job's memory is counted from ours upwards
        runs = {name: [installed(disk, env, log, first, then) for _ in range(rounds)]
                for name, then in (("full bundle", full), ("delta", made))}
        for name, usages in runs.items():
            print(f"install: {name:31} {median(usage.seconds for usage in usages):8.2f} s "
                  f"{median(usage.cpu for usage in usages):8.2f} s CPU "
                  f"{median(usage.written for usage in usages) / 1e6:8.1f} MB written "
                  f"{max(usage.memory for usage in usages) / 2**20:6.0f} MiB", flush=True)
        missed = max(usage.memory for usage in runs["delta"]) > 64 << 20
    files = changed(trees)
    sizes = [("fussy-pack --base", os.path.getsize(made), taken), summed("zstd", files), summed("bsdiff", files),
             ostree(trees, disk)]
    for name, size, seconds in sizes:
        print(f"{name:40} {size:>12,} bytes {size / sizes[0][1]:6.2f} {seconds:8.1f} s")
    return missed or sizes[0][1] > 0.75 * sizes[1][1] or sizes[0][1] > sizes[3][1]


if __name__ == "__main__":
    main()
