"""A build machine for the firmware of virtual routers, used as a release engineer uses it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdimage.build import build
from pdimage.check import check
from pdimage.lab import config, temporary
from pdimage.pack import pack
from tests.pdimage.workshop import python_packages

# What the installer needs beside Python, and the updater.
INSTALLER = ("click", "python-gnupg", "msgspec", "backports.zstd")
UPDATER = ("tuf", "securesystemslib", "cryptography", "cffi", "pycparser", "urllib3")
SIGNER = "lab@example.org"
UPDATE = """product = "{product}"
sources = ["http://gateway.lab/channel"]
random_delay = 0
"""


# What a firmware has beside the installer: texts (programs begin with "#!") and links, by path.
Files = Mapping[str, str | Path]


class Factory:
    """A build machine in the directory PLACE: a signing key, a channel, the routers' keyring, images made with pdimage.

    Routers leave it with an installer in /opt/fussy, the keyring in /etc/fussy/keys, and the channel's address.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.keys, self.keyring = place / "keys", place / "keyring"
        self.keys.mkdir(mode=0o700)
        self.signer = self.signing_key(SIGNER)
        self.device = self.fussy("keys", "keyring", str(self.keyring), "--signer", SIGNER, "--name", "router").strip()
        self.www = place / "www"
        self.www.mkdir()
        root = self.channel("init", "-p", "router", "-p", "fleet", "--signer", SIGNER, "-e", self.device)
        shutil.copy(root.splitlines()[-1], self.keyring / "root.json")
        self.packages = python_packages(place / "packages", INSTALLER)
        opt = place / "opt"
        (opt / "firmware").mkdir(parents=True)
        updater = python_packages(place / "updater", UPDATER)
        self.tree("installer", "1", overlay=[str(self.packages), str(updater)]).rename(opt / "fussy")

    @property
    def cache(self) -> Path:
        return config.cache().parent

    def fussy(self, *arguments: str) -> str:
        """Run a command of the build machine; return what it printed."""
        program = Path(sys.executable).with_name("fussy")
        done = subprocess.run([program, *arguments], check=False, text=True, timeout=300, capture_output=True,
                              env={**os.environ, "GNUPGHOME": str(self.keys)})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def next_keyring(self, *signers: str) -> Path:
        """Make the routers' next keyring: the device's key stays, and SIGNERS (fingerprints) may sign from now on."""
        ring = self.place / "ring-next"
        shutil.copytree(self.keyring, ring, ignore=shutil.ignore_patterns("S.*"))
        public = [self.fussy("keys", "export", signer) for signer in signers]
        subprocess.run(["gpg", "--homedir", ring, "--batch", "--quiet", "--import"], input="".join(public), text=True,
                       check=True, timeout=60, capture_output=True)
        (ring / "signers").write_text("".join(f"{signer}\n" for signer in signers))
        return ring

    def signing_key(self, address: str) -> str:
        """Make a key that signs; return its fingerprint."""
        return self.fussy("keys", "signing", f"Lab <{address}>").splitlines()[-1]

    def describe(self, name: str, version: str, files: Files | None = None, **keys: Any) -> Path:
        """Write the description of a firmware with these FILES in it, and more KEYS of a description."""
        directory = self.place / f"{name}-{version}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for path, content in (files or {}).items():
            file = directory / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                file.symlink_to(content)
            else:
                file.write_text(content)
                file.chmod(0o755 if content.startswith("#!") else 0o644)
        overlay = [str(self.packages), *([str(directory / "files")] if files else [])]
        description = directory / "image.yaml"
        description.write_text(yaml.safe_dump({
            "name": f"{name}-{version}", "version": version, "platform": {"paradrop": False, "fussy": True},
            "overlay": overlay, **keys}))
        return description

    def tree(self, name: str, version: str, files: Files | None = None, **keys: Any) -> Path:
        """Build a firmware; return its tree."""
        return build(check(self.describe(name, version, files, **keys)), self.place / "trees" / f"{name}-{version}",
                     cache=self.cache).tree

    def bundle(self, name: str, version: str, files: Files | None = None, signer: str = SIGNER,
               engine: str | None = None, **keys: Any) -> Path:
        """Build and pack a firmware, chutes with the Docker engine at ENGINE; return the bundle."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(self.keys))
            return Path(pack(check(self.describe(name, version, files, **keys)), self.place / "bundles",
                             cache=self.cache, engine=engine, sign_with=signer, encrypt_for=[self.device]))

    def publish(self, product: str, version: str, files: Files | None = None, *options: str,
                **keys: Any) -> None:
        """Build a firmware and offer it in the channel, to routers of this product line: router or fleet."""
        self.channel("add", product, str(self.tree(product, version, files, **keys)), "-V", version, *options)

    def channel(self, verb: str, *arguments: str) -> str:
        """Change the channel."""
        return self.fussy("publish", "--private", str(self.place / "private"), str(self.www / "channel"), verb,
                          *arguments)

    def equip(self, conf: dict[str, Any], product: str = "router") -> None:
        """Put what all routers have when they leave the factory into a description of machines."""
        settings = self.place / f"{product}.toml"
        settings.write_text(UPDATE.format(product=product))
        for net in conf["nets"].values():
            if net["type"] == "nat":
                net["serve"] = str(self.www)
        for domain in conf["domains"].values():
            domain["disks"] = [
                {"type": "template", "name": "root"},
                {"type": "empty", "name": "opt", "size": "1G", "fs": "ext4", "mount": "/opt",
                 "content": str(self.place / "opt")}]
            domain["files"] = {"/etc/fussy/keys": str(self.keyring), "/etc/fussy/update.toml": str(settings)}


@pytest.fixture(scope="session")
def factory() -> Iterator[Factory]:
    """The build machine that all tests share; its path is short, for the sockets of gpg-agent."""
    place = temporary.directory()
    yield Factory(place)
    for home in place.glob("*/pubring.kbx"):
        subprocess.run(["gpgconf", "--homedir", home.parent, "--kill", "all"], check=False, timeout=60)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def lab_configure(factory: Factory) -> Callable[[dict[str, Any]], object]:
    """Routers of these tests come out of the factory."""
    return factory.equip
