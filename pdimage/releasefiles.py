"""Writes what makes a tree a release: hooks, units, settings, the keyring, and what it says of itself."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fussy import manifest
from fussy.gpg import SIGNERS
from fussy.gpghome import RINGS, SECRET_KEYS, TRUST
from fussy.manifest import Check, Description
from paradrop.image.places import PERSISTENT
from paradrop.lib import settings as runtime
from pdimage import treefiles
from pdimage.description import Image
from pdimage.programs import RELEASE_FILES

SETTINGS = "etc/paradrop/settings"
_UNITS = "etc/systemd/system"


def write(tree: Path, image: Image) -> None:
    """Write them all into TREE."""
    for name in ("pre-install", "post-install"):
        treefiles.write(tree, f".{name}", (RELEASE_FILES / name).read_bytes(), 0o755)
    treefiles.copy(tree, ".fussy/common.sh", RELEASE_FILES / "common.sh")
    for name, source in (("pre-install", image.hooks.pre_install), ("post-install", image.hooks.post_install)):
        if source:
            treefiles.write(tree, f".fussy/{name}", source.read_bytes(), 0o755)
    treefiles.write(tree, ".fussy/hooks.conf", hooks_conf(image))
    treefiles.write(tree, PERSISTENT, "".join(f"{path}\n" for path in image.persistent))
    treefiles.write(tree, manifest.DESCRIPTION.decode(), describe(image))
    if image.platform.paradrop:
        lines = [f"{name} {shlex.quote(value)}\n" for name, value in sorted(image.settings.items())]
        treefiles.write(tree, SETTINGS, "# Settings of the runtime, as the image's description has them.\n"
                        + "".join(lines))
        _unit(tree, "paradrop.service", "multi-user.target")
    if image.platform.fussy:
        _unit(tree, "firmware-recover.service", "multi-user.target")
        _unit(tree, "firmware-trial.timer", "timers.target")
        treefiles.copy(tree, f"{_UNITS}/firmware-trial.service", RELEASE_FILES / "firmware-trial.service")
        treefiles.copy(tree, "etc/cron.d/firmware", RELEASE_FILES / "cron")
    for name, path in keyring_files(image.keys) if image.keys else ():
        treefiles.copy(tree, f"{treefiles.PRIVATE}/{name}", path)


def keyring_files(keyring: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of what a device needs of a key directory, not what gpg keeps there for itself."""
    for name in (*RINGS, TRUST, SIGNERS):
        if (keyring / name).is_file():
            yield name, keyring / name
    for path in sorted((keyring / SECRET_KEYS).glob("*.key")):
        yield f"{SECRET_KEYS}/{path.name}", path


def hooks_conf(image: Image) -> str:
    """Return the facts that the hooks need, as shell assignments."""
    facts = {"SYSTEM": image.system, "RUN": setting(image, "RUNTIME_HOME_DIR"),
             "PARADROP": "yes" if image.platform.paradrop else "",
             "CHUTES_SECONDS": f"{image.limits.post_install * 0.9:g}" if image.chutes else ""}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in facts.items())


def setting(image: Image, name: str) -> str:
    """Return the value that a setting of the runtime has on the router."""
    return image.settings.get(name, str(getattr(runtime, name)))


def describe(image: Image) -> bytes:
    """Return ``.fussy/release.json``: a description as :class:`fussy.manifest.Description` reads it."""
    given = {check.name for check in image.health}
    health = [*(check for check in _own_checks(image) if check.name not in given), *image.health]
    described = Description(
        version=image.version, compatible=list(image.compatible), installer=image.installer,
        upgrade_from=image.upgrade_from, floor=image.floor, limits=image.limits, trial=image.trial, health=health,
        metadata=dict(sorted(image.metadata.items())))
    return msgspec.json.format(msgspec.json.encode(described), indent=2) + b"\n"


def _own_checks(image: Image) -> Iterator[Check]:
    """Yield how a device finds out that the runtime answers; .post-install sees to its chutes."""
    if image.platform.paradrop:
        port = setting(image, "PDFCD_PORT")
        yield Check("runtime", http=f"http://127.0.0.1:{port}/v1/test", contains="SUCCESS", seconds=60)


def _unit(tree: Path, name: str, target: str) -> None:
    """Write a unit of systemd that is started with TARGET."""
    treefiles.copy(tree, f"{_UNITS}/{name}", RELEASE_FILES / name)
    wants = tree / _UNITS / f"{target}.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(f"../{name}")
