"""The chute store: what lasts, and what happens when the disk does not play along."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.lib import settings
from paradrop.lib.chute import Chute


@pytest.fixture
def storage(home: Path) -> Iterator[ChuteStorage]:
    ChuteStorage.chuteList = {}
    yield ChuteStorage()
    ChuteStorage.chuteList, ChuteStorage.unreadable = {}, False


def chute(name: str, **values: Any) -> Chute:
    return Chute({"name": name, "state": "running", **values})


def reloaded() -> ChuteStorage:
    ChuteStorage.chuteList = {}
    return ChuteStorage()


def test_chutes_are_there_after_a_restart(storage: ChuteStorage) -> None:
    one = chute("one", environment={"A": "b"}, date=datetime.date(2015, 8, 6))
    one.setCache("networkInterfaces", [{"name": "wifi", "subnet": "192.168.128.0/24"}])
    one.setCache("osNetworkConfig", [({"type": "interface"}, {"proto": "static"})])
    one.setCache("virtPreamble", {"main": object()})
    storage.saveChute(one)
    again = reloaded().getChute("one")
    assert again is not None and again.state == "running" and again.descriptor["environment"] == {"A": "b"}
    assert again.descriptor["date"] == "2015-08-06"
    assert again.getCache("networkInterfaces") == [{"name": "wifi", "subnet": "192.168.128.0/24"}]
    assert again.getCache("osNetworkConfig") == [[{"type": "interface"}, {"proto": "static"}]]
    assert again.getCache("virtPreamble") is None


def test_all_instances_share_the_list(storage: ChuteStorage) -> None:
    storage.saveChute(chute("one"))
    other = ChuteStorage()
    assert [found.name for found in other.getChuteList()] == ["one"]
    other.deleteChute("one")
    assert storage.getChute("one") is None


def test_a_saved_chute_replaces_the_one_of_its_name(storage: ChuteStorage) -> None:
    storage.saveChute(chute("one", net={}, version=1))
    storage.saveChute(chute("one", version=2))
    found = storage.getChute("one")
    assert found is not None and found.descriptor == {"name": "one", "version": 2}
    assert len(storage.getChuteList()) == 1


def test_deleting_takes_a_chute_or_a_name(storage: ChuteStorage) -> None:
    one = chute("one")
    storage.saveChute(one)
    storage.deleteChute(one)
    with pytest.raises(KeyError):
        storage.deleteChute("one")
    with pytest.raises(ValueError, match="without a name"):
        storage.saveChute(Chute({}))


def test_a_failed_write_changes_nothing(storage: ChuteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.saveChute(chute("one"))
    content = Path(settings.FC_CHUTESTORAGE_SAVE_PATH).read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paradrop.lib.utils.pdosq.replaceFile", full)
    with pytest.raises(OSError, match="No space"):
        storage.saveChute(chute("two"))
    with pytest.raises(OSError, match="No space"):
        storage.deleteChute("one")
    assert [found.name for found in storage.getChuteList()] == ["one"]
    assert Path(settings.FC_CHUTESTORAGE_SAVE_PATH).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04K\x01.", b"[]", b'{"format": 99, "data": {}}'])
def test_an_unreadable_file_is_kept_and_noted(storage: ChuteStorage, content: bytes) -> None:
    path = Path(settings.FC_CHUTESTORAGE_SAVE_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert reloaded().getChuteList() == [] and ChuteStorage.unreadable
    storage.saveChute(chute("new"))
    aside = list(path.parent.glob("chutes.unreadable-*"))
    assert [file.read_bytes() for file in aside] == [content]


def test_secrets_are_for_root_only(storage: ChuteStorage) -> None:
    storage.saveChute(chute("one", net={"wifi": {"key": "password"}}))
    assert Path(settings.FC_CHUTESTORAGE_SAVE_PATH).stat().st_mode & 0o777 == 0o600


def test_clearing_forgets_and_removes(storage: ChuteStorage) -> None:
    storage.saveChute(chute("one"))
    storage.clearChuteStorage()
    assert storage.getChuteList() == [] and not Path(settings.FC_CHUTESTORAGE_SAVE_PATH).exists()
