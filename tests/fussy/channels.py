"""Makes channels with the command line, and follows them with python-tuf's own client."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from fussy import channel
from fussy.channel import Offer
from fussy.publishing import check, cli, metadata, places

from .conftest import Keys
from .firmware import Firmware


class Channel:
    """A channel at PLACE/channel with the product lines ``router`` and ``beta``."""

    def __init__(self, place: Path, keys: Keys) -> None:
        self.place, self.keys = place, keys
        self.where = places.places(place / "channel")
        self.firmware = Firmware(place, keys)
        self.clients = 0

    def __call__(self, verb: str, *arguments: str | Path, fails: int = 0, options: tuple[str | Path, ...] = ()) -> str:
        """Run ``fussy-publish CHANNEL VERB``; return what it printed. FAILS is the exit code to expect."""
        line = [*map(str, options), str(self.where.channel), verb, *map(str, arguments)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(self.keys.home))
            done = CliRunner().invoke(cli.publish, line)
        assert done.exit_code == fails, (done.output, done.exception)
        return done.output

    def json(self, verb: str, *arguments: str | Path) -> Any:
        return json.loads(self(verb, *arguments, "--json"))

    def init(self, *arguments: str | Path, fails: int = 0) -> str:
        return self("init", "-p", "router", "-p", "beta", "--keyring", self.keys.keyring, "-e", self.keys.device,
                    "--sign-with", self.keys.signer, *arguments, fails=fails)

    def tree(self, number: int, files: Mapping[Any, str | bytes] | None = None, **release: Any) -> Path:
        content = files or {"etc/version": str(number), "bin/app": b"program" * 1000 + str(number).encode()}
        return self.firmware.tree(f"firmware-{number}", content, {"version": f"{number}.0", **release})

    def add(self, number: int, *arguments: str | Path, product: str = "router", **release: Any) -> Any:
        return self.json("add", product, self.tree(number, **release), *arguments)

    def client(self, root: bytes | None = None, name: str = "") -> Updater:
        """Return a device's client; the same NAME has the same cache, others begin anew with the first root."""
        self.clients += not name
        directory = self.place / (name or f"client-{self.clients}")
        directory.mkdir(exist_ok=True)
        return check.client(self.where, directory, root or (self.where.metadata / "1.root.json").read_bytes())

    def offered(self, product: str = "router", name: str = "", root: bytes | None = None) -> dict[str, Offer]:
        """Return what a device finds: offers by their target path."""
        return {path: channel.decode(one.custom) for path, one in self.targets(product, name, root).items()}

    def targets(self, product: str = "router", name: str = "", root: bytes | None = None) -> dict[str, TargetFile]:
        """Return the targets that a device finds, after fetching each of them."""
        updater = self.client(root, name)
        updater.refresh()
        updater.get_targetinfo(f"{product}/")
        assert updater.target_dir
        found = metadata.read(Path(updater.target_dir).parent / "metadata" / f"{product}.json").signed.targets
        for path in found:
            one = updater.get_targetinfo(path)
            assert one is not None
            updater.download_target(one)
        return dict(found)

    def key_of(self, role: str) -> str:
        return str(next(one for one in self.json("roles") if one["role"] == role)["keys"][0]["id"])

    def role(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.json("roles") if one["role"] == name)
        return found

    def popen(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fussy", "publish", str(self.where.channel), *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, "GNUPGHOME": str(self.keys.home)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def made(tmp_path: Path, keys: Keys) -> Channel:
    """A channel that offers nothing yet."""
    one = Channel(tmp_path, keys)
    one.init()
    return one
