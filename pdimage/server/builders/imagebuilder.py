"""Builds images with OpenWrt's ImageBuilder: ``make info``, ``make manifest``, ``make image``.

The commands and what they print are in the OpenWrt documents, "Using the Image Builder".

Each version and target has one ImageBuilder, unpacked once into the cache; builds with it wait for one another, for it
works in its own directory. Only names that :mod:`pdimage.server.names` lets through reach ``make``, which gives them to
a shell.
"""

import fcntl
import hashlib
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pdimage import scratch, tools
from pdimage.errors import PartFailed
from pdimage.server import names
from pdimage.server.builders import Impossible, Product, Task, Tell, TooBig, size_told
from pdimage.server.builders.running import Make, make_in
from pdimage.server.catalogue import Board, Package, Target

# Which of the files devices install, the first pattern that fits (the order that asu has always had).
SYSUPGRADE = ("*-squashfs-sysupgrade.*", "*-sysupgrade.bin", "*-sysupgrade.tar", "*-nand-sysupgrade.bin", "*.trx",
              "*.chk", "*-squashfs.bin", "*-squashfs-sdcard.img.gz", "*-sdcard.img.gz", "*-combined-squashfs*",
              "*.img.gz")
_TOO_BIG = re.compile(r"too big:? (?:by )?(?P<size>\d+)(?: > (?P<room>\d+))?", re.IGNORECASE)
# What opkg and apk print of packages that can't be had: a line for each, and deeper below it why.
_WHICH = re.compile(r" \* (?! )|  (?! )\S.*:$|Cannot ")
_WHY = re.compile(r" \*  |    ")


def manifest(task: Task, tell: Tell) -> Mapping[str, str]:
    """Return what the ImageBuilder says that it would install."""
    with _builder(task, tell) as make:
        found = parse_info(make(["info"], "ask the ImageBuilder what it has"))
        _check(task, found)
        code, output = make.attempt(["manifest", *_arguments(task, found)], tell)
        if code:
            raise Impossible(reasons(output))
        return parse_list(output)


def build(task: Task, manifest: Mapping[str, str], tell: Tell) -> Product:
    """Let the ImageBuilder make the image."""
    output = Path(task.place, "output")
    output.mkdir(exist_ok=True)
    with _builder(task, tell) as make:
        found = parse_info(make(["info"], "ask the ImageBuilder what it has"))
        extra = [f"BIN_DIR={make.name(output)}", f"EXTRA_IMAGE_NAME={task.hash[:12]}"]
        if task.defaults:
            files = Path(task.place, "files")
            script = files / "etc/uci-defaults/99-server-defaults"
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(task.defaults, encoding="utf-8")
            extra.append(f"FILES={make.name(files)}")
        if task.request.rootfs_size_mb:
            extra.append(f"ROOTFS_PARTSIZE={task.request.rootfs_size_mb}")
        code, text = make.attempt(["image", *_arguments(task, found), *extra], tell)
    if too_big := _TOO_BIG.search(text):
        size, room = int(too_big["size"]), int(too_big["room"] or 0)
        raise TooBig(size_told(size, room, task.board) if room else
                     f"Selected packages exceed device storage: the image is {size} bytes too big; leave packages out")
    if code:
        raise PartFailed(f"ImageBuilder failed to create image:\n{tools.last_lines(text)}")
    made = sorted(path for path in output.iterdir() if path.is_file() and names.is_good("file", path.name))
    return Product(files=tuple(map(str, made)), sysupgrade=choose(output, task.request.filesystem), details={
        "title": found.boards[task.request.profile].model, "version_code": found.revision})


def survey(task: Task, tell: Tell) -> Target:
    """Ask the ImageBuilder of a target for its boards and packages."""
    with _builder(task, tell) as make:
        found = parse_info(make(["info"], "ask the ImageBuilder what it has"))
        listed = parse_list(make(["package_list"], "ask the ImageBuilder for its packages"))
    packages = {name: Package(version) for name, version in listed.items() if names.is_good("package", name)}
    return Target({name: Board(task.request.target, name, board.model, board.names, packages=board.packages)
                   for name, board in found.boards.items() if names.is_good("profile", name)},
                  packages, found.defaults, found.revision)


def parse_info(text: str) -> Target:
    """Read what ``make info`` prints; packages are not in it.

    >>> found = parse_info('Current Revision: "r1"\\nDefault Packages: a b\\nAvailable Profiles:\\n\\nx:\\n    X 1\\n')
    >>> found.revision, found.defaults, found.boards["x"].model
    ('r1', ('a', 'b'), 'X 1')
    """
    head, _, profiles = text.partition("Available Profiles:")
    revision = re.search(r'^Current Revision: "?([^"\n]+)"?$', head, re.MULTILINE)
    defaults = re.search(r"^Default Packages: *(.*)$", head, re.MULTILINE)
    boards = {}
    for name, lines in re.findall(r"^([^\s:]+):\n((?:    .*\n?)*)", profiles, re.MULTILINE):
        facts = [line.strip() for line in lines.splitlines()]
        more = dict(line.split(": ", 1) for line in facts[1:] if ": " in line)
        own_names = tuple(one.replace(",", "_") for one in more.get("SupportedDevices", "").split())
        boards[name] = Board("", name, facts[0] if facts else name, own_names,
                             packages=tuple(more.get("Packages", "").split()))
    return Target(boards, {}, tuple(defaults[1].split()) if defaults else (), revision[1] if revision else "")


def parse_list(text: str) -> dict[str, str]:
    """Read lines ``NAME - VERSION``; what else is printed is passed over.

    >>> parse_list("make: Entering\\nvim - 9.0-1 - 12\\nluci - git-19.1\\n")
    {'vim': '9.0-1', 'luci': 'git-19.1'}
    """
    return dict(re.findall(r"^([A-Za-z0-9][A-Za-z0-9_.+-]*) - (\S+)", text, re.MULTILINE))


def reasons(output: str) -> str:
    """Return what a package manager's output says of packages that can't be had: which, and why.

    >>> reasons("ERROR: unable to select packages:\\n  foo (no such package):\\n    required by: world[foo]\\n")
    'foo (no such package): required by: world[foo]'
    >>> reasons(" * satisfy_dependencies_for: Cannot satisfy the following dependencies for luci:\\n *      libfoo\\n")
    'satisfy_dependencies_for: Cannot satisfy the following dependencies for luci: libfoo'
    """
    told: list[str] = []
    for line in output.splitlines():
        if _WHICH.match(line):
            told.append(line.strip(" *"))
        elif told and _WHY.match(line):
            told[-1] += f" {line.strip(' *')}"
    return "; ".join(dict.fromkeys(told)) or tools.last_lines(output).strip()


def choose(output: Path, filesystem: str = "") -> str:
    """Return the name of the file that devices install, empty if there is none."""
    found = sorted(path.name for path in output.iterdir() if not filesystem or filesystem in path.name)
    for pattern in SYSUPGRADE:
        if fitting := [name for name in found if Path(name).match(pattern)]:
            return fitting[0]
    return ""


def _check(task: Task, found: Target) -> None:
    request = task.request
    if request.version_code and request.version_code != found.revision:
        raise Impossible(f"Received incorrect version {found.revision} (requested {request.version_code})", told="")
    if request.profile not in found.boards:
        raise Impossible(f"unknown device {request.profile}: the target has {', '.join(sorted(found.boards)[:20])}",
                         told="")


def _arguments(task: Task, found: Target) -> list[str]:
    """Return what ``make`` is told of a request: with diff_packages, what the board has and nobody asked for goes."""
    wanted = list(task.request.packages)
    if task.request.diff_packages:
        own = {*found.defaults, *found.boards[task.request.profile].packages}
        wanted += sorted(f"-{name}" for name in own - set(wanted) if not name.startswith("-"))
    return [f"PROFILE={task.request.profile}", f"PACKAGES={' '.join(wanted)}"]


@contextmanager
def _builder(task: Task, tell: Callable[[str], object]) -> Iterator[Make]:
    """Have the ImageBuilder of a target for oneself, unpacked."""
    version = task.distro.versions[task.request.version]
    source = version.imagebuilder.format(target=task.request.target, version=task.request.version,
                                         name=task.request.target.replace("/", "-"))
    where = source if "://" in source else str(Path(task.root, source))
    home = Path(task.cache, "imagebuilders")
    home.mkdir(parents=True, exist_ok=True)
    place = home / hashlib.sha256(where.encode()).hexdigest()[:32]
    with (home / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if version.snapshot and _is_old(place):
            shutil.rmtree(place)
        if not place.is_dir():
            tell(f"setting up the ImageBuilder {where}")
            _set_up(where, place)
        yield make_in(place, Path(task.place), task.engine, task.distro.container)


def _is_old(place: Path) -> bool:
    import time

    return place.is_dir() and place.stat().st_mtime < time.time() - 86400


def _set_up(where: str, place: Path) -> None:
    """Copy or unpack an ImageBuilder; it appears under its name when it is complete."""
    with scratch.directory(place.parent, place.name) as half:
        if "://" in where:
            archive = half / Path(urllib.parse.urlsplit(where).path).name
            _download(where, archive)
        else:
            archive = Path(where)
        unpacked = half / "unpacked"
        if archive.is_dir():
            shutil.copytree(archive, unpacked, symlinks=True)
        elif archive.is_file():
            unpacked.mkdir()
            tools.run(["tar", "-xf", archive, "-C", unpacked, "--strip-components=1"],
                      what=f"unpack the ImageBuilder {where}")
        else:
            raise PartFailed(f"cannot use the ImageBuilder {where}: it is neither a directory nor an archive")
        unpacked.rename(place)


def _download(url: str, file: Path) -> None:
    """Load an ImageBuilder and compare it with ``sha256sums`` beside it."""
    import urllib3

    pool = urllib3.PoolManager(timeout=60, retries=2)
    try:
        sums = pool.request("GET", urllib.parse.urljoin(url, "sha256sums"))
        wanted = re.search(rf"^([0-9a-f]{{64}}) [ *]{re.escape(file.name)}$", sums.data.decode(), re.MULTILINE)
        if sums.status != 200 or wanted is None:
            raise PartFailed(f"cannot load {url}: sha256sums beside it does not name it")
        digest = hashlib.sha256()
        with file.open("wb") as target, pool.request("GET", url, preload_content=False) as answer:
            for block in answer.stream(1 << 20):
                digest.update(block)
                target.write(block)
    except (urllib3.exceptions.HTTPError, UnicodeDecodeError) as error:
        raise PartFailed(f"cannot load {url}: {error}") from error
    if digest.hexdigest() != wanted[1]:
        raise PartFailed(f"cannot use {url}: its SHA-256 is {digest.hexdigest()}, not {wanted[1]}")
