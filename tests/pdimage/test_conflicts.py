"""Conflicts between chutes are found when the image is described: all of them, at their places."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from paradrop.lib import settings
from pdimage import conflicts
from pdimage.check import check
from pdimage.description import ChuteSource, Image, Resources
from pdimage.errors import Mistakes
from pdimage.yamlsource import Place

PLACE = Place(Path("image.yaml"), 7)


def chute(name: str, **config: Any) -> ChuteSource:
    return ChuteSource(name, archive=Path("image.tar"), config=config, place=PLACE, where=f"chutes[{name}]")


def found(*chutes: ChuteSource, resources: Resources = Resources(), **wanted: str) -> list[str]:  # noqa: B008
    image = Image("router", "1", chutes=chutes, resources=resources, settings=wanted)
    return [f"{mistake.path}: {mistake.text}" for mistake in conflicts.problems(image)]


def wifi(ssid: str, **more: Any) -> dict[str, Any]:
    return {"net": {"wifi": {"type": "wifi", "intfName": "wlan0", "ssid": ssid, **more}}}


def test_chutes_that_have_nothing_in_common_are_good() -> None:
    radios = {"radio0": {"hwmode": "11g"}}
    assert found(chute("one", **wifi("One")), chute("two", **wifi("Two"), host_config={"port_bindings": {80: 8080}}),
                 resources=Resources(1 << 30, 2, radios, ("eth1",))) == []


@pytest.mark.parametrize(("one", "two", "said"), [
    (wifi("Same"), wifi("Same"), "chutes[two].config.net.wifi.ssid: Same belongs to one; change one of them"),
    ({"host_config": {"port_bindings": {80: 9000}}}, {"host_config": {"port_bindings": {8080: 9000}}},
     "chutes[two].config.host_config.port_bindings.8080: port 9000 belongs to one; change one of them"),
    (wifi("A", ipv4_network="10.0.0.0/23"), wifi("B", ipv4_network="10.0.1.0/24"),
     "chutes[two].config.net.wifi.ipv4_network: 10.0.1.0/24 overlaps 10.0.0.0/23 of one; change one of them"),
    ({"resources": {"cpu_fraction": 0.7}}, {"resources": {"cpu_fraction": 0.4}},
     "chutes[two].config.resources: 0.4 of the processors are asked for, beside one (0.7), of 1; change one of them"),
    ({"resources": {"memory": 200 << 20}}, {"resources": {"memory": 100 << 20}},
     "chutes[two].config.resources: 104857600 bytes of memory are asked for, beside one (209715200), of 268435456; "
     "change one of them"),
    ({}, {"host_config": {"port_bindings": {80: settings.PDFCD_PORT}}},
     "chutes[two].config.host_config.port_bindings.80: port 14321 is the router's own; change one of them"),
    (wifi("A", mode="monitor"), {}, "chutes[one].config.net.wifi: cannot give one the network wifi: this router does "
     "not let chutes listen to all that is on the air; its owner can set ALLOW_MONITOR_MODE; the image's resources "
     "list what the board has"),
    (wifi("A"), wifi("B", mode="sta"),
     "chutes[two].config.net.wifi: no radio is left beside one; change one of them"),
    (wifi("A", requirements={"hwmode": "11a"}), {},
     "chutes[one].config.net.wifi: Missing device(s) requested by chute: net.wifi needs a radio, hwmode 11a; the "
     "image's resources list what the board has"),
    ({"net": {"lan": {"type": "lan", "intfName": "eth1"}}}, {"net": {"lan": {"type": "lan", "intfName": "eth1"}}},
     "chutes[two].config.net.lan: no LAN device is left beside one; change one of them"),
], ids=["ssid", "port", "subnet", "cpu", "memory", "own port", "monitor", "radio is taken", "radio is missing", "lan"])
def test_each_conflict_is_told(one: dict[str, Any], two: dict[str, Any], said: str) -> None:
    board = Resources(256 << 20, 2, {"radio0": {"hwmode": "11g"}}, ("eth1",))
    assert said in found(chute("one", **one), chute("two", **two), resources=board)


def test_what_is_not_known_of_a_board_is_not_looked_at() -> None:
    assert found(chute("one", **wifi("A", requirements={"hwmode": "11a"}), resources={"memory": 1 << 40})) == []


def test_the_images_own_settings_count() -> None:
    taken = chute("one", host_config={"port_bindings": {80: 9000}})
    assert found(taken, PDFCD_PORT="9000") and not found(taken)


def test_containers_of_different_chutes_have_different_names() -> None:
    services = {"services": {"web": {"type": "image", "image": "x"}, "db": {"type": "image", "image": "y"}}}
    assert found(chute("shop", **services), chute("shop-db")) == [
        "chutes[shop-db].config.name: the container's name shop-db belongs to shop; change one of them"]


def test_all_are_told_at_once_with_file_and_line(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("FROM busybox\n")
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(
            {"name": name, "dockerfile": {"local": "Dockerfile"}, **wifi("Same"),
             "host_config": {"port_bindings": {80: 9000}}}, sort_keys=False))
    chutes = "[{path: one}, {path: two}, {path: three}]"
    (tmp_path / "image.yaml").write_text(f"name: router\nversion: '1'\nchutes: {chutes}\n")
    with pytest.raises(Mistakes) as wrong:
        check(tmp_path / "image.yaml")
    lines = [str(mistake) for mistake in wrong.value.mistakes]
    assert f"{tmp_path}/two/config.yaml:8: net.wifi.ssid: Same belongs to one; change one of them" in lines
    assert len(lines) == 6 and any("port 9000 belongs to two" in line for line in lines)


@pytest.mark.parametrize(("config", "said"), [
    ({"dockerfile": {"local": "other/Dockerfile.arm"}}, "other/Dockerfile.arm, which is not there; write it"),
    ({"download": {"url": "http://example.org/chute.tar.gz"}}, "is downloaded from http://example.org/chute.tar.gz"),
    ({"type": "light", "use": "python3", "command": "python -u main.py"}, "is of type light"),
    ({"dockerfile": {"local": "away/Dockerfile"}}, "which is not in the chute's directory; put it there"),
    ({"external_image": "busybox"}, ""), ({"dockerfile": {"inline": "FROM busybox"}}, ""),
    ({"dockerfile": {"local": "Dockerfile"}}, ""),
], ids=["missing", "download", "light", "outside", "image", "inline", "good"])
def test_chutes_that_cannot_be_built_are_told(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    place = tmp_path / "one"
    place.mkdir()
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    (place / "away").symlink_to(tmp_path)
    (place / "Dockerfile").write_text("FROM busybox\n")
    (place / "config.yaml").write_text(yaml.safe_dump({"name": "one", **config}))
    (tmp_path / "image.yaml").write_text("name: router\nversion: '1'\nchutes: [{path: one}]\n")
    if not said:
        assert check(tmp_path / "image.yaml").chutes
        return
    with pytest.raises(Mistakes) as wrong:
        check(tmp_path / "image.yaml")
    (mistake,) = wrong.value.mistakes
    assert said in mistake.text and mistake.file == str(place / "config.yaml")
