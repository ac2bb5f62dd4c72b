"""Upgrades in the course of which power is cut, and what must be true when the router has booted again.

Releases are small: a dozen files, some of them the same in each release, hooks, links; they are built, signed and
encrypted as any other, with keys of their own.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fussy import state, verify
from fussy.errors import FussyError
from fussy.install import ready
from fussy.target import Target
from pdimage.errors import PartFailed

_WELL = "#!/bin/sh\nexit 0\n"
_FAILS_UNLESS_BACK = "#!/bin/sh\n[ \"$2\" = True ]\n"
# What runs a command: fussy, with single syncs left out if that is asked for.
RUNNER = "pdimage.lab.unsynced"
# Instead of a verb: the documented function of that name, alone.
SWAP = "swap_link"
# Instead of a verb: put a file of some other origin in the target.
PUT = "put"
# What a boot runs.
RECOVER = ("recover",)
_BASE = (("install", "fw-1"), ("install", "fw-2"), ("install", "fw-3"), ("failsafe",))


@dataclass(frozen=True)
class Scene:
    """What is done before, and COMMAND, which ends with CODE; words that name a release stand for its bundle.

    Releases that may be current ("" for none): DURING it, after a boot (SETTLED), and once it has ended (DONE).
    ON_TRIAL: the release that is on trial when it has ended; GONE, THERE: what is not there any more then, and what is.
    """

    command: tuple[str, ...]
    during: frozenset[str]
    settled: frozenset[str]
    done: str
    before: tuple[tuple[str, ...], ...] = _BASE
    code: int = 0
    on_trial: str = ""
    gone: tuple[str, ...] = ()
    there: tuple[str, ...] = ()


def _names(text: str) -> frozenset[str]:
    return frozenset("" if word == "none" else word for word in text.split())


_TRIED = (*_BASE, ("install", "fw-6"))
SCENES = {
    "first": Scene(("install", "fw-1"), _names("none fw-1"), _names("none fw-1"), "fw-1", before=()),
    "install": Scene(("install", "fw-4"), _names("fw-3 fw-4"), _names("fw-3 fw-4"), "fw-4"),
    "spare": Scene(("install", "fw-4"), _names("fw-3 fw-4"), _names("fw-3 fw-4"), "fw-4", before=(*_BASE, ("clean",))),
    "fallback": Scene(("install", "fw-5"), _names("fw-3 fw-5"), _names("fw-3"), "fw-3", code=3),
    "rollback": Scene(("rollback",), _names("fw-3 fw-2"), _names("fw-3 fw-2"), "fw-2"),
    "clean": Scene(("clean",), _names("fw-4"), _names("fw-4"), "fw-4",
                   before=(*_BASE, ("install", "fw-4"), (PUT, "notes")), gone=("fw-1", "fw-2", "notes")),
    "first-failsafe": Scene(("failsafe",), _names("fw-3"), _names("fw-3"), "fw-3", before=_BASE[:3],
                            there=("failsafe",)),
    "failsafe": Scene(("failsafe",), _names("fw-3"), _names("fw-3"), "fw-3", there=("failsafe",)),
    "swap": Scene((SWAP, "fw-2"), _names("fw-3 fw-2"), _names("fw-3 fw-2"), "fw-2"),
    "trial": Scene(("install", "fw-6"), _names("fw-3 fw-6"), _names("fw-3 fw-6"), "fw-6", on_trial="fw-6"),
    "confirm": Scene(("confirm",), _names("fw-6"), _names("fw-6"), "fw-6", before=_TRIED),
    "reject": Scene(("reject",), _names("fw-3 fw-6"), _names("fw-3 fw-6"), "fw-3", before=_TRIED),
}


class Workshop:
    """A build machine in the directory PLACE, with the bundles of all releases and the routers' keyring."""

    def __init__(self, place: Path) -> None:
        self.place, self.keyring = place, place / "keyring"
        (place / "keys").mkdir(mode=0o700)
        self._fussy("keys", "signing", "Lab <lab@example.org>")
        self._fussy("keys", "keyring", str(self.keyring), "--signer", "lab@example.org", "--name", "router")
        self.bundles = {name: self._pack(name, files) for name, files in _releases().items()}

    def _fussy(self, *words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "fussy", *words], cwd=self.place, capture_output=True, text=True,
                              env={**os.environ, "GNUPGHOME": str(self.place / "keys")}, stdin=subprocess.DEVNULL,
                              timeout=120, check=False)
        if done.returncode:
            raise PartFailed(f"cannot prepare releases: {done.stderr.strip()}")
        return done.stdout

    def _pack(self, name: str, files: Mapping[str, str]) -> Path:
        tree = self.place / name
        for path, content in files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o755 if content.startswith("#!") else 0o644)
        os.link(tree / "lib/same-0", tree / "lib/again")
        (tree / "link").symlink_to("bin/app")
        return Path(self._fussy("pack", "-r", name, "-e", "router@device.invalid", "-o", ".").splitlines()[-1])

    def argv(self, words: tuple[str, ...], target: Path) -> list[str]:
        """Return the command line of a fussy command on TARGET; words that name a release stand for its bundle."""
        if words[0] == SWAP:
            return [sys.executable, "-m", RUNNER, SWAP, str(target / words[1]), str(target / "current")]
        if words[0] == PUT:
            return [sys.executable, "-m", RUNNER, PUT, str(target / words[1])]
        argv = [sys.executable, "-m", RUNNER, *(str(self.bundles.get(word, word)) for word in words)]
        argv += ["-t", str(target), "-l", str(self.place / "log")]
        return [*argv, "-k", str(self.keyring)] if words[0] == "install" else argv

    def prepare(self, scene: Scene, target: Path) -> None:
        """Do what comes before SCENE."""
        for words in scene.before:
            done = subprocess.run(self.argv(words, target), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=120, check=False)
            if done.returncode:
                raise PartFailed(f"cannot prepare a disk: {' '.join(words)}: {done.stderr.strip()}")


def _releases() -> dict[str, dict[str, str]]:
    """Return the files of each release."""
    releases = {}
    for number in range(1, 7):
        files = {f"lib/same-{i}": f"same {i}\n" * 3000 for i in range(4)}
        files |= {f"lib/own-{i}": f"own {i} of {number}\n" * (400 << i) for i in range(5)}
        files |= {"bin/app": f"#!/bin/sh\necho {number}\n", "etc/conf": "conf\n", "etc/empty": "",
                  ".pre-install": _WELL, ".post-install": _FAILS_UNLESS_BACK if number == 5 else _WELL}
        if number == 6:
            files[".fussy/release.json"] = '{"trial": {"confirm": "hand"}}'
        releases[f"fw-{number}"] = files
    return releases


def broken(target: Target, scene: Scene) -> list[str]:
    """Return what is wrong with TARGET as the power cut left it, before anything has a chance to mend it."""
    try:
        current = target.current_release()
    except FussyError as error:
        return [str(error)]
    if current is None:
        if os.path.lexists(target.current):
            return [f"current leads nowhere: {os.readlink(target.current)!r}"]
        return [] if "" in scene.during else ["current is gone"]
    found = [] if current.name in scene.during else [f"current is {current.name}"]
    return found + _damage(current)


def recover(target: Target) -> list[str]:
    """Do what the boot does; return what went wrong."""
    # its warnings are what this is about; they would only be noise
    logging.getLogger("fussy").addHandler(logging.NullHandler())
    try:
        with ready(target.root):
            return []
    except (FussyError, OSError) as error:
        return [f"recover failed: {error}"]


def unsettled(target: Target, scene: Scene, done: bool) -> list[str]:
    """Return what is wrong with TARGET after the boot; DONE: whether the command had said that it was done."""
    current = target.current_release()
    name = current.name if current else ""
    found = []
    if done and name != scene.done:
        found.append(f"acknowledged, but current is {name or 'gone'} and not {scene.done}")
    elif name not in scene.settled:
        found.append(f"current is {name or 'gone'} after the boot")
    for release in target.releases():
        found += _damage(release)
    now = state.load(target)
    if now.transaction:
        found.append("a transaction is still open after the boot")
    if done and (now.trial.release if now.trial else "") != scene.on_trial:
        found.append(f"on trial is {now.trial and now.trial.release}, not {scene.on_trial or 'nothing'}")
    if done:
        found += [f"acknowledged, but {name} is there again" for name in scene.gone if target.release(name).exists()]
        found += [f"acknowledged, but {name} is gone" for name in scene.there if not target.release(name).exists()]
    found += [f"{directory.name} is not empty" for directory in (target.staging, target.trash)
              if directory.is_dir() and os.listdir(directory)]
    return found


def _damage(release: Path) -> list[str]:
    try:
        return [f"{release.name}: {problem}" for problem in verify.damage(release)]
    except FussyError as error:
        return [str(error)]
