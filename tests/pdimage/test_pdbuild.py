"""scripts/pdbuild.sh: the documented verbs, from a fresh checkout's setup to a bundle that a router accepts."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy.verify import verify_bundle

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/pdbuild.sh"


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory with a short path, for sockets of gpg-agent."""
    if not (SCRIPT.parents[1] / ".venv/bin/pdimage").exists():
        pytest.skip("scripts/setup has not made .venv in this checkout")
    path = Path(tempfile.mkdtemp(prefix="pdbuild-"))
    yield path
    subprocess.run(["gpgconf", "--homedir", path / "keys", "--kill", "all"], check=False, timeout=60)
    shutil.rmtree(path, ignore_errors=True)


def pdbuild(work: Path, *arguments: str, code: int = 0) -> str:
    image = work / "image.yaml"
    image.write_text("name: router-{{ v }}\nversion: '{{ v }}'\nvariables: {v: '1'}\nplatform: {paradrop: false}\n")
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=300, check=False, env={
        **os.environ, "PDBUILD_DIR": str(work), "PDBUILD_IMAGE": str(image), "PDIMAGE_CACHE": str(work / "cache")})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_from_setup_to_a_bundle_that_a_router_accepts(work: Path) -> None:
    assert "run scripts/pdbuild.sh setup first" in pdbuild(work, "build", code=40)
    for _ in range(2):
        assert "Keys are in" in pdbuild(work, "setup")
    assert "good (router-1, version 1" in pdbuild(work, "check")
    bundle = work / "router-2.tar.zst.gpg"
    assert f"{bundle}\n" in pdbuild(work, "build", "-D", "v=2")
    assert "builds@pdbuild.invalid" in verify_bundle(bundle, work / "keyring").signer.user_id
    assert {path.name for path in work.glob("router-2*")} == {
        bundle.name, *(f"{bundle.name}.{kind}" for kind in ("sbom.cdx.json", "licences.txt", "provenance.json"))}
    for verb in ("connect", "install", "install_deps"):
        assert "the virtual router does not run; run scripts/pdbuild.sh up" in pdbuild(work, verb, code=40)


def test_the_verbs_are_told(work: Path) -> None:
    said = pdbuild(work)
    for verb in ("setup", "build", "install", "check", "up", "down", "connect", "install_deps"):
        assert f"\n  {verb} " in said
    assert "there is no verb wifi" in pdbuild(work, "wifi", code=2)
