"""scripts/pdbuild.sh, from setup to a router with the firmware in it, with the documented verbs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdimage.lab import plugin
from pdimage.lab.prefix import Prefix

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/pdbuild.sh"


@pytest.fixture
def work(lab_directory: Path) -> Iterator[Path]:
    if reason := plugin.missing():
        pytest.skip(reason)
    yield lab_directory
    if (lab_directory / "router").exists():
        Prefix(lab_directory / "router").destroy()
    for home in ("keys", "keyring"):
        subprocess.run(["gpgconf", "--homedir", lab_directory / home, "--kill", "all"], check=False, timeout=60)


def test_the_documented_verbs_bring_firmware_into_a_virtual_router(work: Path) -> None:
    image = work / "image.yaml"
    lock = SCRIPT.parents[1] / "pdimage/images/router.lock"
    image.write_text(f"name: router-1\nversion: '1'\nplatform: {{paradrop: false, requirements: {lock}}}\n")

    def pdbuild(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=900, check=False,
                              stdin=subprocess.DEVNULL,
                              env={**os.environ, "PDBUILD_DIR": str(work), "PDBUILD_IMAGE": str(image)})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    pdbuild("setup")
    assert "run scripts/pdbuild.sh up" in pdbuild("install_deps", code=40)
    pdbuild("up", "wifi-2-5")
    assert pdbuild("connect", "iw", "dev").count("type managed") == 2
    pdbuild("build")
    assert "run scripts/pdbuild.sh install_deps" in pdbuild("install", code=40)
    pdbuild("install_deps")
    pdbuild("install")
    said = pdbuild("check")
    assert "current   router-1 (version 1)" in said
    assert "/opt/firmware/router-1: good" in said
    pdbuild("down")
    assert "run scripts/pdbuild.sh up" in pdbuild("connect", "true", code=40)
