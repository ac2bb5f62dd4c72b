"""A build machine for the firmware of virtual routers, used as a release engineer uses it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdimage.build import build
from pdimage.check import check
from pdimage.lab import config
from pdimage.lab.machine import VM
from pdimage.pack import pack
from tests.pdimage.workshop import python_packages

INSTALLER = "/opt/fussy"
KEYS = "/etc/fussy/keys"
# What the installer and the updater need beside Python.
NEEDED = ("click", "python-gnupg", "msgspec", "backports.zstd", "tuf", "securesystemslib", "cryptography", "cffi",
          "pycparser", "urllib3")
SIGNER = "lab@example.org"


class Factory:
    """A build machine in the directory PLACE: a signing key, the routers' keyring, and images made with pdimage."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.keys, self.keyring = place / "keys", place / "keyring"
        self.keys.mkdir(mode=0o700)
        self.fussy("keys", "signing", f"Lab <{SIGNER}>")
        self.fussy("keys", "keyring", str(self.keyring), "--signer", SIGNER, "--name", "router")
        self.packages = python_packages(place / "packages", NEEDED)
        self.installer = build(check(self.describe("installer", "1")), place / "installer", cache=self.cache).tree

    @property
    def cache(self) -> Path:
        return config.cache().parent

    def fussy(self, *arguments: str) -> str:
        """Run a command of the build machine; return what it printed."""
        program = Path(sys.executable).with_name("fussy")
        return subprocess.run([program, *arguments], check=True, text=True, timeout=120, capture_output=True,
                              env={**os.environ, "GNUPGHOME": str(self.keys)}).stdout

    def describe(self, name: str, version: str, files: Mapping[str, str] | None = None, **keys: Any) -> Path:
        """Write the description of a firmware with these FILES in it, and more KEYS of a description."""
        directory = self.place / f"{name}-{version}"
        for path, content in (files or {}).items():
            file = directory / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o755 if content.startswith("#!") else 0o644)
        directory.mkdir(exist_ok=True)
        overlay = [str(self.packages), *([str(directory / "files")] if files else [])]
        description = directory / "image.yaml"
        description.write_text(yaml.safe_dump({
            "name": f"{name}-{version}", "version": version, "platform": {"paradrop": False, "fussy": True},
            "overlay": overlay, **keys}))
        return description

    def bundle(self, name: str, version: str, files: Mapping[str, str] | None = None, **keys: Any) -> Path:
        """Build and pack a firmware; return the bundle."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(self.keys))
            return Path(pack(check(self.describe(name, version, files, **keys)), self.place / "bundles",
                             cache=self.cache, sign_with=SIGNER, encrypt_for=["router@device.invalid"]))

    def equip(self, router: VM) -> None:
        """Do what is done once to each router before it leaves the factory: an installer, and the keyring."""
        router.run(["mkdir", "-p", INSTALLER, KEYS])
        router.copy_to(self.installer, INSTALLER)
        router.copy_to(self.keyring, KEYS)
        router.run(f"chown -R root: {INSTALLER} {KEYS}; chmod 700 {KEYS}")


@pytest.fixture(scope="session")
def factory() -> Iterator[Factory]:
    """The build machine that all tests share; its path is short, for the sockets of gpg-agent."""
    place = Path(tempfile.mkdtemp(prefix="lab-f-", dir="/var/tmp"))
    yield Factory(place)
    for home in (place / "keys", place / "keyring"):
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=60)
    shutil.rmtree(place, ignore_errors=True)
