"""Makes descriptions and images in a directory of the test, and installs them beside a system directory of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from fussy import install
from pdimage.build import Built, build
from pdimage.check import check
from pdimage.description import Image
from pdimage.errors import Mistakes
from pdimage.pack import pack
from tests.fussy.conftest import Keys

NEEDED = ("click", "python-gnupg", "msgspec", "backports.zstd", "docker", "dbus-fast", "pyyaml", "starlette", "urllib3",
          "uvicorn", "anyio", "idna", "h11", "typing_extensions", "requests", "certifi", "charset-normalizer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_packages(place: Path, names: Iterable[str] = NEEDED) -> Path:
    """Make an overlay with Python packages (what the runtime needs) in ``lib/python``, out of what runs the tests."""
    library = place / "lib/python"
    for name in names:
        for file in metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (library / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), library / file)
    return place


class Workshop:
    """A directory of descriptions; ``system`` gets the links, ``target`` the releases."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.target, self.system = place / "opt", place / "system"
        self.system.mkdir(parents=True)
        self.port = free_port()

    def file(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        file = self.place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def describe(self, content: str | Mapping[str, Any], path: str = "image.yaml") -> Path:
        return self.file(path, content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))

    def mistakes(self, content: str | Mapping[str, Any], **options: Any) -> list[str]:
        """Return what ``pdimage check`` finds, without the directory of the test."""
        with pytest.raises(Mistakes) as caught:
            check(self.describe(content), **options)
        return [str(mistake).replace(f"{self.place}/", "") for mistake in caught.value.mistakes]

    def image(self, content: str | Mapping[str, Any], **options: Any) -> Image:
        return check(self.describe(content), **options)

    def build(self, content: str | Mapping[str, Any], tree: str = "tree", **options: Any) -> Built:
        return build(self.image(content, **options), self.place / tree, cache=self.place / "cache")

    def settings(self) -> dict[str, str]:
        """What keeps the runtime inside the directory of the test."""
        return {"PDFCD_PORT": str(self.port), "CONFIG_HOME_DIR": f"{self.place}/state",
                "RUNTIME_HOME_DIR": f"{self.place}/run", "UCI_CONFIG_DIR": f"{self.place}/uci",
                "DOCKER_CONFIG_FILE": f"{self.place}/docker.default",
                "DOCKER_HOST": f"unix://{self.place}/no-engine.sock", "DOCKER_START_TIMEOUT": "1"}

    def pack(self, content: Mapping[str, Any], keys: Keys, **options: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", str(keys.home))
            options = {"sign_with": keys.signer, "encrypt_for": [keys.device], **options}
            return pack(self.image(content), self.place / "bundles", cache=self.place / "cache", **options)

    def install(self, bundle: Path, keyring: Path) -> Path:
        return install.install_release(bundle, keyring, self.target)

    def fussy(self, verb: str, *arguments: str, fails: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "fussy", verb, *arguments, "-t", str(self.target)],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == fails, done.stdout + done.stderr
        return done.stdout

    def pid(self) -> int:
        """The process of the runtime, 0 if there is none."""
        try:
            found = int((self.place / "run/pd.pid").read_text())
            line = Path(f"/proc/{found}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return found if b"paradrop.main:main" in line else 0

    def running_release(self) -> str:
        """The name of the release whose files the runtime was started from."""
        line = Path(f"/proc/{self.pid()}/cmdline").read_bytes().split(b"\0")
        start = next(part for part in line if part.endswith(b"/lib/start.py"))
        return os.fsdecode(start.removesuffix(b"/lib/start.py").rpartition(b"/")[2])

    def close(self) -> None:
        """End the runtime if it runs."""
        if pid := self.pid():
            os.kill(pid, signal.SIGTERM)
            for _ in range(300):
                if not self.pid():
                    return
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
