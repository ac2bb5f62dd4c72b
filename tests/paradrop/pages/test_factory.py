"""Factory reset: what goes, what stays, and that a kill at any step is made good by the next start."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine

from fussy.updating import record
from paradrop.backend.fc import chutestorage, factory, journal, reconcile
from paradrop.backend.pdfcd import identity
from paradrop.backend.pdfcd.accounts import Accounts
from paradrop.lib import firmware, settings
from paradrop.lib.chute import Chute
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}


@pytest.fixture
def router(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A router that somebody has used: a chute with data, configuration, an account, an identity, a held update."""
    monkeypatch.setattr(settings, "DOCKER_HOST", f"unix://{home}/nobody.sock")
    monkeypatch.setattr(settings, "FIRMWARE_TARGET", str(home / "opt"))
    for place in ("opt/failsafe", "opt/firmware-1/etc/config", "opt/.fussy", "lib/data/web/pictures",
                  "lib/snapshots/a~1", "lib/logs", "lib/data/.old.removed"):
        (home / place).mkdir(parents=True)
    (home / "opt/current").symlink_to("firmware-1")
    (home / "opt/firmware-1/etc/config/system").write_text("config system\n")
    (home / "lib/data/web/pictures/1").write_text("private")
    network = uci.UCIConfig(uci.getSystemPath("network"))
    network.addConfig({"type": "interface", "name": "lan"}, {"proto": "static"})
    network.save()
    (home / "config/system").symlink_to(home / "opt/current/etc/config/system")
    chutestorage.ChuteStorage.chuteList = {}
    chutestorage.ChuteStorage().saveChute(Chute({"name": "web"}))
    Accounts().set_user("admin", "correct horse", "admin")
    identity.provision("pd.joe.aardvark", "key", "certificate")
    target = firmware.target()
    assert target
    record.save_owner(target, record.Owner(held=True, reason="the show is on"))
    yield home
    chutestorage.ChuteStorage.chuteList = {}


def everything(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): path.read_text() for part in ("lib", "config", "opt")
            for path in sorted((home / part).rglob("*")) if path.is_file() and not path.name.endswith(".new")}


def assert_reset(home: Path) -> None:
    left = everything(home)
    owner = left.pop("opt/.fussy/update/owner.json")
    assert '"held": false' in owner
    assert left == {
        "config/system": "config system\n", "opt/firmware-1/etc/config/system": "config system\n",
        "lib/chutes.journal": '{"web":[]}'}
    assert (home / "opt/current").readlink() == Path("firmware-1")
    assert (home / "opt/failsafe").is_dir()
    assert not (home / "lib/data").exists()
    assert not factory.decided()


def test_everything_of_the_owner_goes_and_the_firmware_stays(router: Path) -> None:
    before = everything(router)
    factory.decide(["web"])
    after = everything(router)
    assert after.pop("lib/factory-reset") == '{"chutes":["web"]}'
    assert after == before, "until the next start nothing is touched"
    assert factory.finish()
    assert_reset(router)
    assert not factory.finish()
    chutestorage.ChuteStorage.chuteList = {}
    assert (chutestorage.ChuteStorage().getChuteList(), Accounts().users(), identity.IdentityFile().identity) == \
        ([], {}, None)


def test_a_kill_at_any_step_is_made_good_by_the_next_start(
        router: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    factory.decide(["web"])
    steps = 0
    for last in range(1, 200):
        place = tmp_path_factory.mktemp("killed") / "router"
        shutil.copytree(router, place, symlinks=True)
        (place / "config/system").unlink()
        (place / "config/system").symlink_to(place / "opt/current/etc/config/system")
        child = os.fork()
        if child == 0:
            _finish_and_die(place, last)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert (place / "lib/factory-reset").exists() or "config/network" not in everything(place)
        steps = last
        settings.relocate(place)
        settings.FIRMWARE_TARGET = str(place / "opt")
        factory.finish()
        assert_reset(place)
    assert steps > 20


def _finish_and_die(place: Path, last: int) -> None:
    """Reset the router at PLACE, and be killed before the last of so many changes of its files."""
    count = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    settings.relocate(place)
    settings.FIRMWARE_TARGET = str(place / "opt")
    sys.addaudithook(hook)
    try:
        factory.finish()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_what_cannot_be_read_or_deleted_is_told(router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory.marker().write_text("{")
    with pytest.raises(ParadropError, match="is damaged .*; write"):
        factory.finish()
    factory.decide([])

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("paradrop.image.kept.remove", refuse)
    with pytest.raises(ParadropError, match="Read-only file system.*; the next start tries again"):
        factory.finish()
    assert factory.decided()


@pytest.mark.docker
def test_containers_images_and_networks_go_when_the_engine_answers(
        router: Path, engine_of_session: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of_session.clear()
    monkeypatch.setattr(settings, "DOCKER_HOST", engine_of_session.url)
    monkeypatch.setattr(settings, "PDCONFD_ENABLED", False)
    client = engine_of_session.client
    foreign = client.create_container("busybox:latest", name="somebody-elses", command=["true"])["Id"]
    label = {"io.paradrop.chute": "forgotten"}
    client.create_container("busybox:latest", name="forgotten", labels=label, command=["sleep", "1000"])
    client.create_network("paradrop-forgotten", labels=label)
    client.start("forgotten")
    factory.decide(["web"])
    factory.finish()
    assert journal.unfinished() == {"forgotten": [], "web": []}
    chutestorage.ChuteStorage.chuteList = {}
    assert reconcile.reconcile(chutestorage.ChuteStorage())
    assert [item["Id"] for item in client.containers(all=True)] == [foreign]
    assert not client.networks(names=["paradrop-forgotten"])
    assert journal.unfinished() == {}
    engine_of_session.clear()
