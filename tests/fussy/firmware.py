"""Makes small firmware trees and bundles, and installs them into a target of their own."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fussy import install
from fussy.pack import pack

from .conftest import Keys

Files = Mapping[Any, str | bytes]


class Firmware:
    """A workshop at PLACE: trees, bundles, and the directory ``target`` that they are installed into."""

    def __init__(self, place: Path, keys: Keys) -> None:
        self.place, self.keys = place, keys
        self.target = place / "opt"
        self.bundles: dict[str, Path] = {}

    def tree(self, name: str, files: Files, release: Mapping[str, Any] | None = None) -> Path:
        """Make a directory with FILES; hooks are executable. RELEASE is what ``.fussy/release.json`` says."""
        tree = self.place / "trees" / name
        if release:
            files = {**files, ".fussy/release.json": json.dumps(release)}
        tree.mkdir(parents=True)
        for path, content in files.items():
            file = Path(os.fsdecode(os.path.join(os.fsencode(tree), os.fsencode(path))))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            file.chmod(0o755 if file.name in (".pre-install", ".post-install") else 0o644)
        return tree

    def pack_tree(self, tree: Path, **options: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(self.keys.home))
            options.setdefault("sign_with", self.keys.signer)
            options.setdefault("encrypt_for", self.keys.device)
            bundles = self.place / "bundles"
            bundles.mkdir(exist_ok=True)
            bundle = Path(pack(tree, output=bundles, **options))
        self.bundles[tree.name] = bundle
        return bundle

    def pack(self, name: str, files: Files, *, release: Mapping[str, Any] | None = None, **options: Any) -> Path:
        return self.pack_tree(self.tree(name, files, release), **options)

    def pack_by_hand(self, name: str, files: Files, compress: Sequence[str] = ("gzip",)) -> Path:
        """Do what the documents of fussy 1.0 do: tar, compress, gpg."""
        tree = self.tree(name, files)
        tar = subprocess.run(["tar", "-c", "-C", tree.parent, name], capture_output=True, check=True).stdout
        return self.seal(name, subprocess.run([*compress], input=tar, capture_output=True, check=True).stdout)

    def pack_members(self, name: str, members: Sequence[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]) -> Path:
        """Sign a tar of exactly these MEMBERS, as an enemy with the key would."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for member in members:
                info, content = member if isinstance(member, tuple) else (member, b"")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return self.seal(name, raw.getvalue())

    def seal(self, name: str, content: bytes) -> Path:
        """Sign and encrypt any CONTENT."""
        bundle = self.place / f"{name}.gpg"
        self.keys.gpg("--sign", "--encrypt", "--local-user", self.keys.signer, "--recipient", self.keys.device,
                      "--output", str(bundle), text=content)
        return bundle

    def install(self, bundle: Path, *, boards: list[str] | None = None) -> Path:
        return install.install_release(bundle, self.keys.keyring, self.target, boards=boards)

    def popen(self, verb: str, *arguments: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fussy", verb, *map(str, arguments), "-t", str(self.target)]
        if verb in ("install", "clean", "rollback", "recover", "failsafe", "trial", "confirm", "reject", "check"):
            command += ["-l", str(self.place / "log")]
        if verb in ("install", "verify"):
            command += ["-k", str(self.keys.keyring)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, verb: str, *arguments: str | Path, fails: int = 0) -> str:
        """Run ``fussy VERB`` on the target; return what it printed. FAILS is the exit code to expect."""
        process = self.popen(verb, *arguments)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == fails, output
        return output
