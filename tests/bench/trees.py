"""Makes the pair of firmware trees that the measurements use: real Debian packages, and a minor release of them.

``firmware-1`` and ``firmware-2`` (about 350 MB and 12,000 files each) differ as two releases of a router's firmware do:
some packages got a security update, two are new, and the web page moved to a directory named after its version.
``firmware-fix`` is ``firmware-1`` with a few packages updated.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

# Updated between the releases, when the archive still offers an older version beside the newest.
UPDATED = [
    "libssl3", "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal", "libcurl4", "curl", "hostapd",
    "wpasupplicant", "strongswan-starter", "strongswan-libcharon", "libstrongswan", "bind9-libs", "bind9-host",
    "dnsmasq-base", "openssh-client", "openssh-server", "sudo", "rsync", "libc6", "libc-bin", "libsystemd-shared",
]
SAME = [
    "docker.io", "tzdata", "perl-base", "openssl", "bash", "busybox", "iproute2", "iptables", "nftables", "tcpdump",
    "iw", "wireless-regdb", "ethtool", "ppp", "openvpn", "python3-django", "python3-twisted", "python3-docker",
    "perl-modules-5.36", "vim-runtime", "usb-modeswitch-data", "modemmanager", "snmpd", "libsnmp-base", "lighttpd",
    "wireguard-tools", "radvd", "firmware-ath9k-htc",
]
NEW = ["mosquitto", "monit"]
WEB_PAGE = ["libjs-bootstrap", "node-jquery"]
# A security release: firmware-1 with the newest version of these alone, less than a twentieth of its bytes.
FIXED = ["libssl3", "libcurl4", "curl", "sudo", "rsync", "libstrongswan", "strongswan-libcharon", "strongswan-starter"]
# Builds of the same source, for when the archive has one version only: (path, its package, the other, path there).
RELATED = [
    ("usr/sbin/squid", "squid", "squid-openssl", "usr/sbin/squid"),
    ("usr/bin/sudo", "sudo", "sudo-ldap", "usr/bin/sudo"),
    ("usr/bin/python3.11", "python3.11-minimal", "python3.11-nopie", "usr/bin/python3.11"),
    ("usr/bin/php8.2", "php8.2-cli", "php8.2-phpdbg", "usr/bin/phpdbg8.2"),
    ("usr/sbin/php-fpm8.2", "php8.2-fpm", "php8.2-cgi", "usr/bin/php-cgi8.2"),
    ("usr/bin/qemu-system-arm", "qemu-system-arm", "qemu-system-ppc", "usr/bin/qemu-system-ppc"),
]
OLD, MINOR, FIX = "firmware-1", "firmware-2", "firmware-fix"
DOWNLOAD_LIMIT = 300 * 1000 * 1000


@dataclass(frozen=True)
class Pair:
    """Two trees and how the second differs from the first, in files and bytes."""

    old: str
    new: str
    old_files: int
    old_bytes: int
    new_files: int
    new_bytes: int
    changed: int
    changed_bytes: int
    added: int
    added_bytes: int
    moved: int
    mtime_only: int
    gone: int
    stand_ins: bool

    def __str__(self) -> str:
        text = (f"{Path(self.old).name}: {self.old_files:,} files, {self.old_bytes / 1e6:.0f} MB; "
                f"{Path(self.new).name}: {self.new_files:,} files, {self.new_bytes / 1e6:.0f} MB, of which "
                f"{self.changed} changed ({self.changed_bytes / 1e6:.0f} MB), {self.added} new "
                f"({self.added_bytes / 1e6:.1f} MB), {self.moved} moved, {self.mtime_only} with another mtime only; "
                f"{self.gone} gone")
        if self.stand_ins:
            text += ("\nThe archive offers a single version of too many packages now: part of the change is other "
                     "builds of the same sources, so compare ratios only with runs on this same pair.")
        return text


@dataclass(frozen=True)
class Version:
    """One version of a package that the archive offers; size in bytes."""

    package: str
    version: str
    size: int


def offered(packages: list[str]) -> dict[str, list[Version]]:
    """Return the versions of each package, newest first."""
    shown = subprocess.run(["apt-cache", "show", "--all-versions", *packages],
                           check=True, capture_output=True, text=True).stdout
    found: dict[str, list[Version]] = {package: [] for package in packages}
    for paragraph in shown.split("\n\n"):
        field = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if "Filename" in field and field["Package"] in found:
            version = Version(field["Package"], field["Version"], int(field["Size"]))
            if version not in found[version.package]:
                found[version.package].append(version)
    missing = [package for package, versions in found.items() if not versions]
    if missing:
        sys.exit(f"cannot make the trees: no package {', '.join(missing)} in the archive; run apt-get update")
    return found


def download(wanted: list[Version], folder: Path) -> dict[Version, Path]:
    """Fetch what FOLDER lacks, in one polite sequential run, and return each version's file."""
    files = {}
    for item in wanted:
        names = list(folder.glob(f"{item.package}_{item.version.replace(':', '%3a')}_*.deb"))
        if names:
            files[item] = names[0]
    missing = [item for item in wanted if item not in files]
    size = sum(item.size for item in missing)
    if size > DOWNLOAD_LIMIT:
        sys.exit(f"cannot make the trees: {size / 1e6:.0f} MB of packages to download, over the limit")
    if missing:
        print(f"downloading {len(missing)} Debian packages, {size / 1e6:.0f} MB", file=sys.stderr)
        subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root",
                        *(f"{item.package}={item.version}" for item in missing)],
                       check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return download(wanted, folder)
    return files


def unpack(deb: Path, tree: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)


def stand_in(trees: tuple[Path, Path], folder: Path) -> None:
    """Make the minor change from other builds of the same sources: one in each tree, at the same path."""
    versions = offered([name for _, first, second, _ in RELATED for name in (first, second)])
    files = download([versions[name][0] for name in versions], folder)
    for path, first, second, path_there in RELATED:
        for tree, package, inside in ((trees[0], first, path), (trees[1], second, path_there)):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                unpack(files[versions[package][0]], Path(scratch))
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).unlink(missing_ok=True)
                (Path(scratch) / inside).rename(tree / path)


def build(folder: Path) -> None:
    """Build both trees below FOLDER (``debs`` keeps the packages)."""
    debs = folder / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    versions = offered([*UPDATED, *SAME, *NEW, *WEB_PAGE])
    single = [package for package in UPDATED if len(versions[package]) == 1]
    if single:
        print(f"only one version offered of: {' '.join(single)}", file=sys.stderr)
    before = [versions[package][-1 if package in UPDATED else 0] for package in [*UPDATED, *SAME]]
    after = [versions[package][0] for package in [*UPDATED, *SAME, *NEW]]
    fixed = [versions[item.package][0] if item.package in FIXED else item for item in before]
    page = [versions[package][0] for package in WEB_PAGE]
    files = download(list(dict.fromkeys([*before, *after, *page])), debs)
    trees = folder / OLD, folder / MINOR
    for tree, contents, number in ((trees[0], before, "1.0"), (trees[1], after, "1.1"),
                                   (folder / FIX, fixed, "1.0")):
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        for item in contents:
            unpack(files[item], tree)
        for item in page:
            unpack(files[item], tree / f"srv-{number}")
    if len(single) > len(UPDATED) / 3:
        stand_in(trees, debs)
    (folder / "versions.json").write_text(json.dumps(
        {"1": {v.package: v.version for v in before}, "2": {v.package: v.version for v in after},
         "stand_ins": len(single) > len(UPDATED) / 3}, indent=1))


def contents(tree: Path) -> dict[str, tuple[int, str, int]]:
    """Return size, SHA-256 and mtime in nanoseconds of each regular file of a tree, by its path."""
    found = {}
    for directory, _, names in os.walk(tree):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                facts = path.stat()
                found[str(path.relative_to(tree))] = facts.st_size, digest, facts.st_mtime_ns
    return found


def compare(folder: Path, new: str = MINOR) -> Pair:
    """Read the old tree and NEW and say how they differ."""
    first, second = contents(folder / OLD), contents(folder / new)
    both = [name for name in second if name in first]
    changed = [name for name in both if first[name][1] != second[name][1]]
    there = {digest for _, digest, _ in first.values()}
    only_second = [name for name in second if name not in first]
    moved = [name for name in only_second if second[name][1] in there]
    added = [name for name in only_second if second[name][1] not in there]
    return Pair(
        str(folder / OLD), str(folder / new),
        len(first), sum(size for size, _, _ in first.values()),
        len(second), sum(size for size, _, _ in second.values()),
        len(changed), sum(second[name][0] for name in changed),
        len(added), sum(second[name][0] for name in added), len(moved),
        sum(1 for name in both if first[name][:2] == second[name][:2] and first[name][2] != second[name][2]),
        sum(1 for name in first if name not in second),
        json.loads((folder / "versions.json").read_text())["stand_ins"])


def pair(folder: Path, new: str = MINOR, *, rebuild: bool = False) -> Pair:
    """Return the pair below FOLDER that ends with NEW; all trees are made when they are not there yet.

    ``pair.json``, written last, says that they are.
    """
    record = folder / "pair.json"
    if rebuild:
        record.unlink(missing_ok=True)
    pairs = json.loads(record.read_text()) if record.exists() else {}
    if FIX not in pairs:
        build(folder)
        pairs = {name: asdict(compare(folder, name)) for name in (MINOR, FIX)}
        record.write_text(json.dumps(pairs, indent=1))
    return Pair(**pairs[new])


def main() -> None:
    """Make the pair (or find it) and print what it is."""
    parser = argparse.ArgumentParser(description="Make the pair of firmware trees that the measurements use.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[2] / ".bench")
    parser.add_argument("--rebuild", action="store_true", help="make the trees anew from today's archive")
    options = parser.parse_args()
    print(pair(options.folder, rebuild=options.rebuild))


if __name__ == "__main__":
    main()
