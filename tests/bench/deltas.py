"""Measures deltas on two pairs of releases: what is sent, beside other ways, and installing one beside the full bundle.

The pairs are those of trees.py: a minor release, and a security release that changes less than a twentieth. Installs
are cold and durable, on a file system of their own. The ``floor`` is what any release made of hard links costs, without
manifest or checks: one decryption, ``cp -al``, the changed files copied, sync. A device that is cleaned after each
update has a spare (see fussy.recycle). An update is a whole run of fussy-update on such a device, behind a line. What
is sent is compared on the first pair.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import lines
import peers
from disk import Disk, cool, own_mounts
from homes import keys
from jobs import COPY_OLD, DURABLE, OPEN, SEAL
from main import stop
from measure import Usage, run_script
from trees import FIX, MINOR, OLD, pair

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
PACK = ('GNUPGHOME="$BUILD" fussy-pack "$TREES/{tree}" -z zstd -k "$SIGNER" -e "$READER" -o "$OUT" {more} '
        '--compatible bench -V {version}')
PACK_PLAIN = f'tar -C "$TREES" -cf - {{tree}} | gzip -6 | {SEAL} -o "$OUT/{{tree}}.tar.gz.gpg"'
INSTALL = f'fussy-install -k "$DEVICE" -t "$DISK/t" -b bench -l "$OUT/log" "{{bundle}}"; {DURABLE}'
CLEAN = f'fussy-clean -t "$DISK/t" -l "$OUT/log"; {DURABLE}'
CLASSIC = ('mkdir "$DISK/tmp"; gpg --homedir "$DEVICE" --batch --yes -q -d "$OUT/{tree}.tar.gz.gpg" '
           '| tar -C "$DISK/tmp" -xzpf -; '
           'rsync -a --link-dest="$DISK/t/current/" "$DISK/tmp/{tree}/" "$DISK/t/{tree}"; '
           f'ln -s {{tree}} "$DISK/t/new"; mv -T "$DISK/t/new" "$DISK/t/current"; {DURABLE}')
FLOOR = (f'{OPEN} "{{bundle}}" | zstd -dc >/dev/null; cp -al "$DISK/t/{OLD}" "$DISK/t/{{tree}}"; '
         'tar -C "$TREES/{tree}" -cf - -T "$OUT/{tree}.changed" '
         f'| tar -C "$DISK/t/{{tree}}" --unlink-first -xpf -; {DURABLE}')
# How many times as long an update by the full bundle has to take, on which line, when little changed.
FASTER, FASTER_ON = 5, "100 Mbit/s"
MEMORY_LIMIT = 64 << 20


@dataclass(frozen=True)
class Way:
    """A way to install: what is there before, and what is run."""

    name: str
    prepare: str
    script: str


class Bench:
    """Where bundles are made and installed."""

    def __init__(self, trees: Path, disk: Disk, env: dict[str, str], out: Path) -> None:
        self.trees, self.disk, self.env, self.out = trees, disk, env, out
        self.log = out / "last-job.log"

    def run(self, script: str) -> Usage:
        return run_script(script, self.env, self.log)

    def bundle(self, tree: str) -> Path:
        """Make the full bundle of TREE."""
        self.run(PACK.format(tree=tree, more="", version=1 + (tree != OLD)))
        return self.out / f"{tree}.tar.zst.gpg"

    def delta(self, tree: str) -> peers.Sent:
        """Make the delta from the release that is installed; its path is in ``deltas``."""
        start = time.monotonic()
        self.run(PACK.format(tree=tree, more=f'-B "$DISK/t/{OLD}"', version=2))
        made = next(self.out.glob(f"{tree}.from-*.delta.gpg"))
        return peers.Sent(made.name, made.stat().st_size, time.monotonic() - start)

    def measure(self, way: Way) -> Usage:
        """Install once, on a fresh disk, with a cold cache."""
        self.disk.renew()
        self.run(way.prepare)
        self.disk.settle()
        cool()
        before = self.disk.written()
        usage = self.run(way.script)
        return Usage(usage.seconds, usage.cpu, usage.memory, self.disk.written() - before)

    def ways(self, tree: str, first: Path, full: Path, delta: peers.Sent) -> list[Way]:
        """Return the ways to come from the first release to TREE; the first one is the classic."""
        self.run(PACK_PLAIN.format(tree=tree))
        changed = [new.relative_to(self.trees / tree)
                   for _, new in peers.changed(self.trees / OLD, self.trees / tree)]
        (self.out / f"{tree}.changed").write_text("".join(f"{path}\n" for path in changed))
        ours = INSTALL.format(bundle=first)
        return [Way("gpg, tar xz, rsync --link-dest", COPY_OLD, CLASSIC.format(tree=tree)),
                Way("fussy-install, full bundle", ours, INSTALL.format(bundle=full)),
                Way("fussy-install, delta", ours, INSTALL.format(bundle=self.out / delta.name)),
                Way("fussy-install, full bundle, spare", cleaned(first, full), INSTALL.format(bundle=full)),
                Way("fussy-install, delta, spare", cleaned(first, full), INSTALL.format(bundle=self.out / delta.name)),
                Way("floor: gpg, cp -al, changed files, sync", COPY_OLD,
                    FLOOR.format(tree=tree, bundle=self.out / delta.name))]


def cleaned(first: Path, full: Path) -> str:
    """Return what makes a device that has been updated and cleaned a few times, with the FIRST release current."""
    return "; ".join((INSTALL.format(bundle=first),
                      *(f"{INSTALL.format(bundle=bundle)}; {CLEAN}" for bundle in (full, first) * 2)))


def report_installs(ways: list[Way], runs: dict[str, list[Usage]]) -> None:
    """Print the medians; ratios are medians of the ratios within each round, to the delta."""
    print(f"{'install':40} {'time':>7} {'ratio':>6} {'CPU':>7} {'written':>9} {'memory':>7}")
    delta = runs["fussy-install, delta"]
    for way in ways:
        report(way.name, runs[way.name], delta)


def report(name: str, mine: list[Usage], delta: list[Usage]) -> float:
    """Print one line of a table; return the ratio to the DELTA."""
    ratio = median(one.seconds / ours.seconds for one, ours in zip(mine, delta, strict=True))
    seconds, cpu = median(one.seconds for one in mine), median(one.cpu for one in mine)
    written, memory = median(one.written for one in mine), max(one.memory for one in mine)
    print(f"{name:40} {seconds:5.2f} s {ratio:6.2f} {cpu:5.2f} s {written / 1e6:6.1f} MB {memory >> 20:3} MiB",
          flush=True)
    return ratio


def updates(bench: Bench, tree: str, first: Path, full: Path, rounds: int) -> list[str]:
    """Print what whole updates take behind a line; return the limits that were missed."""
    bench.run(lines.PUBLISH.format(tree=tree, old=first, new=full))
    missed = []
    print(f"{'update':40} {'time':>7} {'ratio':>6} {'CPU':>7} {'written':>9} {'memory':>7}")
    with lines.served(bench.out / f"channel-{tree}") as url:
        for line, rate in lines.LINES.items():
            lines.shape(rate)
            ways = [Way(f"fussy-update, {kind}, {line}", cleaned(first, full),
                        f"{lines.UPDATE.format(settings=lines.settings(bench.out, url, memory))}; {DURABLE}")
                    for kind, memory in lines.WAYS.items()]
            runs = list(zip(*([bench.measure(way) for way in ways] for _ in range(rounds)), strict=True))
            _, ratio = (report(way.name, list(mine), list(runs[0])) for way, mine in zip(ways, runs, strict=True))
            if tree == FIX and line == FASTER_ON and ratio < FASTER:
                missed.append(f"{tree}: an update by delta, {line}: less than {FASTER} times as fast as by full bundle")
    return missed


def sizes(old: Path, new: Path, delta: peers.Sent) -> list[peers.Sent]:
    """Print and return what each way sends; ours comes first."""
    files = peers.changed(old, new)
    print(f"{'sent':44} {'bytes':>12} {'ratio':>6} {'made in':>9}")
    sent: list[peers.Sent] = []

    def note(one: peers.Sent) -> None:
        sent.append(one)
        print(f"{one.name:44} {one.size:>12,} {one.size / delta.size:6.2f} {one.seconds:7.1f} s", flush=True)

    note(delta)
    for way in (peers.casync, peers.rauc, peers.ostree):
        with tempfile.TemporaryDirectory(prefix="peer-", dir=old.parent) as place:
            note(way(old, new, Path(place)))
    note(peers.zstd_patches(files))
    note(peers.bsdiff_patches(files))
    return sent


def missed_sizes(sent: list[peers.Sent]) -> list[str]:
    """Return the limits on the size of a delta that were missed."""
    ours, *others, patches, _ = sent
    missed = [f"larger than {other.name}" for other in others if ours.size >= other.size]
    if ours.size > 0.75 * patches.size:
        missed.append(f"larger than 0.75 of {patches.name}")
    return missed


def measure(bench: Bench, tree: str, first: Path, rounds: int, what: str) -> list[str]:
    """Print the measurements of the pair that ends with TREE; return the limits that were missed."""
    print(f"\n{pair(bench.trees, tree)}")
    bench.disk.renew()
    bench.run(INSTALL.format(bundle=first))
    delta = bench.delta(tree)
    missed = []
    full = bench.bundle(tree)
    if what in ("installs", "all"):
        ways = bench.ways(tree, first, full, delta)
        runs: dict[str, list[Usage]] = {way.name: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                runs[way.name].append(bench.measure(way))
        report_installs(ways, runs)
        for name in ("fussy-install, delta", "fussy-install, delta, spare"):
            if max(one.memory for one in runs[name]) > MEMORY_LIMIT:
                missed.append(f"{tree}: {name}: more than {MEMORY_LIMIT >> 20} MiB")
    if what in ("updates", "all"):
        missed += updates(bench, tree, first, full, rounds)
    if what in ("sizes", "all") and tree == MINOR:
        missed += missed_sizes(sizes(bench.trees / OLD, bench.trees / tree, delta))
    return missed


def main() -> None:
    """Measure and print; exit code 1 when a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=3, help="paired installs (default: 3)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where the trees are")
    parser.add_argument("--only", choices=["sizes", "installs", "updates", "all"], default="all",
                        help="measure this alone")
    parser.add_argument("--pair", choices=[MINOR, FIX, "both"], default="both", help="measure this pair alone")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    pair(options.folder, MINOR)
    own_mounts()
    lines.own_network()
    with (keys() as environment, Disk(options.folder) as disk,
          tempfile.TemporaryDirectory(prefix="bundles-", dir=options.folder) as out):
        env = environment | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": out, "LC_ALL": "C.UTF-8",
                             "TREES": str(options.folder.resolve()), "DISK": str(disk.mount), "OUT": out}
        bench = Bench(options.folder.resolve(), disk, env, Path(out))
        first = bench.bundle(OLD)
        trees = [MINOR, FIX] if options.pair == "both" else [options.pair]
        missed = [one for tree in trees for one in measure(bench, tree, first, options.rounds, options.only)]
    for one in missed:
        print(f"MISS {one}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
