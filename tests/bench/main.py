"""Measures packing and installing against plain tools, on one machine, in paired runs."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from disk import Disk, cool, own_mounts
from jobs import INSTALL, PACK, Job
from measure import JobFailed, Usage, run_script
from report import Check, as_json, rows, table

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ["tar", "gzip", "zstd", "gpg", "rsync", "mkfs.ext4", "mount", "findmnt", "apt-get", "dpkg-deb"]
HOMES = (("BUILD", "Bench build"), ("DEVICE", "Bench device"))


def gpg(home: Path, *argv: str, stdin: str = "") -> str:
    return subprocess.run(["gpg", "--homedir", home, "--batch", "--yes", "-q", *argv], check=True, input=stdin,
                          capture_output=True, text=True).stdout


@contextmanager
def keys() -> Iterator[dict[str, str]]:
    """Make a signing and a device key, each in a GnuPG home of its own, and yield the environment that names them."""
    made = {}
    homes = []
    try:
        for name, owner in HOMES:
            home = Path(tempfile.mkdtemp(prefix="fussy-bench-"))  # short: gpg-agent's socket lies in it
            homes.append(home)
            gpg(home, "--passphrase", "", "--quick-gen-key", f"{owner} <{name.lower()}@bench.invalid>", "default",
                "default", "never")
            listed = gpg(home, "--with-colons", "--list-keys")
            made[name] = str(home)
            made["SIGNER" if name == "BUILD" else "READER"] = next(
                line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        # "default" is a signing key with a subkey for encryption; each home learns the public half of the other
        for source, other in ((homes[0], homes[1]), (homes[1], homes[0])):
            public = gpg(source, "--armor", "--export")
            gpg(other, "--import", stdin=public)
        gpg(homes[1], "--import-ownertrust", stdin=f"{made['SIGNER']}:6:\n")
        yield made
    finally:
        for home in homes:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
            shutil.rmtree(home, ignore_errors=True)


class Bench:
    """One machine's measurement: a disk, keys, trees, and the jobs that use them."""

    def __init__(self, folder: Path, disk: Disk, environment: dict[str, str], old: Path, new: Path) -> None:
        self.disk = disk
        self.log = folder / "last-job.log"
        self.bundles = folder / "bundles"
        self.trees = folder
        self.old, self.new = old, new
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        self.env = {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "TREES": str(folder), "DISK": str(disk.mount),
                    "BUNDLES": str(self.bundles), "OUT": str(disk.mount), "TREE": "firmware-2", **environment}

    def make_bundles(self, packers: list[Job]) -> None:
        """Pack both releases with every packer; the installers start from these."""
        shutil.rmtree(self.bundles, ignore_errors=True)
        for job in packers:
            out = self.bundles / ("fussy" if "fussy" in job.name else "plain")
            out.mkdir(parents=True, exist_ok=True)
            for tree in ("firmware-1", "firmware-2"):
                run_script(job.script, self.env | {"OUT": str(out), "TREE": tree}, self.log)

    def measure(self, job: Job) -> Usage:
        """Run one job once on a fresh file system."""
        self.disk.renew()
        run_script(job.prepare, self.env, self.log)
        self.disk.settle()
        if job.cold:
            cool()
        before = self.disk.written()
        usage = run_script(job.script, self.env, self.log)
        written = self.disk.written() - before
        size = sum(path.stat().st_size for path in self.disk.mount.glob("*.gpg"))
        return dataclasses.replace(usage, written=written, size=size)

    def check(self, job: Job) -> None:
        """Refuse to compare with a job that did only part of the work: what it installed must be the new tree."""
        current = self.disk.mount / "t" / "current"
        if job in INSTALL:
            done = subprocess.run(["diff", "-rq", "--no-dereference", "-x", ".fussy", self.new, f"{current}/"],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                raise JobFailed(f"{job.name} did not install the tree: {done.stdout[:500]}")


def needed_commands(job: Job) -> set[str]:
    if "fussy" not in job.name:
        return set()
    return {"fussy-pack"} if job in PACK else {"fussy-pack", "fussy-install"}


def installed_commands() -> set[str]:
    """Return which of our commands can be started here."""
    return {name for name in ("fussy-pack", "fussy-install")
            if subprocess.run([ROOT / ".venv/bin" / name, "--help"], capture_output=True, check=False).returncode == 0}


def single_checks(available: set[str]) -> list[Check]:
    """Measure what is no comparison: how fast the installer starts, how much nbio carries."""
    checks = []
    if "fussy-install" in available:
        times = []
        for _ in range(11):
            start = time.monotonic()
            subprocess.run([ROOT / ".venv/bin/fussy-install", "--help"], check=True, stdout=subprocess.DEVNULL)
            times.append(time.monotonic() - start)
        checks.append(Check("fussy-install --help", median(times) * 1000, "ms", 150))
    return checks


def stop(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def too_long(signum: int, frame: object) -> None:
    raise JobFailed("took too long")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=5, help="paired runs of each job (default: 5)")
    parser.add_argument("--only", choices=["pack", "install", "first install", "plain"], action="append",
                        help="measure this alone (plain: the baselines, without our commands); may be repeated")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where trees and results are kept")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    return parser.parse_args()


def chosen(options: argparse.Namespace, available: set[str]) -> list[Job]:
    """Return the jobs asked for whose commands exist, saying which ones do not."""
    jobs = [*PACK, *INSTALL]
    only = set(options.only or ())
    if "plain" in only:
        jobs = [job for job in jobs if "fussy" not in job.name]
    if kinds := only - {"plain"}:
        jobs = [job for job in jobs if job.kind.split(" beside")[0] in kinds]
    for job in jobs:
        if missing := needed_commands(job) - available:
            print(f"left out: {job.kind}: {job.name}: {', '.join(sorted(missing))} does not start", file=sys.stderr)
    return [job for job in jobs if needed_commands(job) <= available]


def main() -> None:
    """Measure, print, write ``bench.json``; exit code 1 when a target was missed."""
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, too_long)
    if os.geteuid():
        sys.exit("cannot measure: run as root, a file system is made and mounted")
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        sys.exit(f"cannot measure: missing {', '.join(missing)}; run scripts/setup")
    options.folder.mkdir(exist_ok=True)
    pair = subprocess.run([sys.executable, Path(__file__).with_name("trees.py"), options.folder], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()
    print(pair, file=sys.stderr)
    available = installed_commands()
    jobs = chosen(options, available)
    taken: dict[Job, list[Usage]] = {job: [] for job in jobs}
    own_mounts()
    with keys() as environment, Disk(options.folder) as disk:
        bench = Bench(options.folder, disk, environment, options.folder / "firmware-1", options.folder / "firmware-2")
        if any(job in INSTALL for job in jobs):
            bench.make_bundles([job for job in PACK if "fussy" not in job.name or "fussy-pack" in available])
        for number in range(options.rounds):
            for job in jobs:
                usage = bench.measure(job)
                if number == 0:
                    bench.check(job)
                taken[job].append(usage)
                print(f"{number + 1}/{options.rounds} {job.kind}: {job.name}: {usage.seconds:.2f} s", file=sys.stderr)
    found, checks = rows(jobs, taken), single_checks(available)
    result = {"trees": pair, "rounds": options.rounds, "machine": os.uname().release, **as_json(found, checks, taken)}
    (options.folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else table(found, checks))
    sys.exit(any(row.missed for row in found) or not all(check.reached for check in checks))


if __name__ == "__main__":
    main()
