"""Measures packing and installing against plain tools, in paired runs on one machine; images; runtime; build server."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import nbio
from disk import Disk, cool, own_mounts
from homes import keys
from jobs import INSTALL, KINDS, PACK, PEERS_INSTALL, PEERS_PACK, Job
from measure import JobFailed, Usage, run_script
from report import Check, as_json, rows, table

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv" / "bin"
# Load average above which others disturb the measurement.
BUSY = 1.0
PEERS = ["ostree", "casync"]
NEEDED = ["tar", "gzip", "zstd", "gpg", "rsync", "mkfs.ext4", "mount", "losetup", "apt-get", "dpkg-deb"]


class Bench:
    """The place where jobs run: a disk of their own, the trees and their bundles in FOLDER, keys."""

    def __init__(self, folder: Path, disk: Disk, keys: dict[str, str]) -> None:
        self.disk = disk
        self.folder = folder
        self.log = folder / "last-job.log"
        self.env = keys | {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/root"), "LC_ALL": "C.UTF-8",
            "TREES": str(folder), "TREE": "firmware-2", "BUNDLES": str(folder / "bundles"),
            "DISK": str(disk.mount), "OUT": str(disk.mount)}

    def make_bundles(self, packers: list[Job]) -> None:
        """Pack both releases with every packer; the installers start from these."""
        bundles = self.folder / "bundles"
        shutil.rmtree(bundles, ignore_errors=True)
        for job in packers:
            out = bundles / ("fussy" if "fussy" in job.name else "plain")
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
        packed = self.disk.mount.rglob("*") if job.kind == "pack" else ()
        size = sum(path.stat().st_size for path in packed if path.is_file())
        return dataclasses.replace(usage, written=written, size=size)

    def check(self, job: Job) -> None:
        """Refuse to compare with a job that did only part of the work: what it installed must be the new tree."""
        if job.kind != "pack":
            done = subprocess.run(["diff", "-rq", "--no-dereference", "-x", ".fussy", self.folder / "firmware-2",
                                   f"{self.disk.mount}/t/current/"], capture_output=True, text=True, check=False)
            if done.returncode:
                raise JobFailed(f"{job.name} did not install the tree: {done.stdout[:500]}{done.stderr[:500]}")


def needed_commands(job: Job) -> set[str]:
    if "fussy" not in job.name:
        return set()
    return {"fussy-pack"} if job.kind == "pack" else {"fussy-pack", "fussy-install"}


def installed_commands() -> set[str]:
    """Return which of our commands can be started here."""
    return {name for name in ("fussy-pack", "fussy-install")
            if subprocess.run([PROGRAMS / name, "--help"], capture_output=True, check=False).returncode == 0}


def chosen(only: list[str], peers: bool, available: set[str]) -> list[Job]:
    """Return the jobs asked for whose commands exist, saying which ones do not."""
    jobs = [*PACK, *INSTALL, *PEERS_PACK * peers, *PEERS_INSTALL * peers]
    jobs.sort(key=lambda job: KINDS.index(job.kind))
    if "plain" in only:
        jobs = [job for job in jobs if "fussy" not in job.name]
    if kinds := set(only) - {"plain"}:
        jobs = [job for job in jobs if job.kind.split(" beside")[0] in kinds]
    for job in jobs:
        if missing := needed_commands(job) - available:
            print(f"left out: {job.kind}: {job.name}: {', '.join(sorted(missing))} does not start", file=sys.stderr)
    return [job for job in jobs if needed_commands(job) <= available]


def wanted(only: list[str], what: str) -> bool:
    """Return whether what is no comparison shall be measured."""
    return not only or what in only


def make_trees(folder: Path) -> str:
    """Make the trees to pack, in a process of its own: reading them takes memory, and that of jobs is counted from ours
    upwards. Return what they are."""
    trees = subprocess.run([sys.executable, Path(__file__).with_name("trees.py"), folder], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.strip()
    print(trees, file=sys.stderr)
    return trees


def measure_jobs(folder: Path, jobs: list[Job], rounds: int) -> dict[Job, list[Usage]]:
    """Run every job once in each round, so that all of them see the same good and bad minutes."""
    taken: dict[Job, list[Usage]] = {job: [] for job in jobs}
    own_mounts()
    with keys() as environment, Disk(folder) as disk:
        bench = Bench(folder, disk, environment)
        if any(job.kind != "pack" for job in jobs):
            ours, peers = (any(word in job.name for job in jobs) for word in ("fussy", "ostree"))
            bench.make_bundles([job for job in PACK if ours or "fussy" not in job.name] + PEERS_PACK * peers)
        for number in range(1, rounds + 1):
            for job in jobs:
                usage = bench.measure(job)
                if number == 1:
                    bench.check(job)
                taken[job].append(usage)
                print(f"{number}/{rounds} {job.kind}: {job.name}: {usage.seconds:.2f} s", file=sys.stderr)
    return taken


def single_checks() -> list[Check]:
    """Measure what is no comparison: how fast the installer starts, what nbio carries and what its waiting costs."""
    times = []
    for _ in range(11):
        start = time.monotonic()
        subprocess.run([PROGRAMS / "fussy-install", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - start)
    carried, _, _ = nbio.between_processes()
    return [
        Check("fussy-install --help", median(times) * 1000, "ms", 150),
        Check("nbio: P('cat') | P('cat')", nbio.SIZE / carried / 1e6, "MB/s", 500, more=True),
        Check("nbio: CPU while idle", 100 * nbio.idle_share(), "%", 2),
    ]


def checks_of(program: str, *arguments: str | Path) -> list[Check]:
    """Measure in a process of its own, whose memory, network namespaces and settings are not ours."""
    done = subprocess.run([sys.executable, Path(__file__).with_name(program), *arguments], stdout=subprocess.PIPE,
                          text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise JobFailed(f"tests/bench/{program} ended with exit code {done.returncode}; see above")
    return [Check(**fields) for fields in json.loads(done.stdout)]


def stop(signum: int, frame: object) -> None:
    """Turn a signal into an exception, so that everything is cleaned up."""
    raise JobFailed("took too long") if signum == signal.SIGALRM else SystemExit(128 + signum)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("-n", "--rounds", type=int, default=5, help="paired runs of each job (default: 5)")
    parser.add_argument("--only", action="append", default=[],
                        choices=["pack", "install", "first install", "single", "plain", "images", "runtime", "server",
                                 "registry"],
                        help="measure this alone (single: what is no comparison; plain: the plain tools without our "
                        "commands; images: building them; runtime: the router's runtime; server: the build server; "
                        "registry: 10,000 linked routers); may be repeated")
    parser.add_argument("--peers", action="store_true", help="measure OSTree and casync too (Debian packages)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where trees and results are kept")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write ``bench.json``; exit code 1 when a target was missed."""
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    if os.geteuid():
        sys.exit("cannot measure: a file system is made and mounted; run as root")
    if missing := [name for name in NEEDED + PEERS * options.peers if not shutil.which(name)]:
        sys.exit(f"cannot measure: missing {', '.join(missing)}; install what has it")
    options.folder.mkdir(exist_ok=True)
    available = installed_commands()
    jobs = chosen(options.only, options.peers, available)
    images = wanted(options.only, "images")
    trees = make_trees(options.folder) if jobs or images else ""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"the load average is {load:.1f}: something else runs here, do not trust the times", file=sys.stderr)
    try:
        taken = measure_jobs(options.folder, jobs, options.rounds) if jobs else {}
        checks = single_checks() if "fussy-install" in available and wanted(options.only, "single") else []
        checks += checks_of("updates.py") if wanted(options.only, "single") else []
        checks += checks_of("images.py", options.folder) if images else []
        checks += checks_of("runtime.py") if wanted(options.only, "runtime") else []
        checks += checks_of("server.py") if wanted(options.only, "server") else []
        checks += checks_of("registry.py") if wanted(options.only, "registry") else []
    except JobFailed as error:
        sys.exit(f"cannot measure: {error}")
    found = rows(jobs, taken)
    result = {"trees": trees, "rounds": options.rounds, "load": load, "kernel": os.uname().release,
              **as_json(found, checks, taken)}
    (options.folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else table(found, checks))
    sys.exit(any(row.missed for row in found) or not all(check.reached for check in checks))


if __name__ == "__main__":
    main()
