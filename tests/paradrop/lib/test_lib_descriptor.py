"""Descriptors: each .yaml beside has its specification in .json or its mistakes in .txt."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paradrop.lib import descriptor
from paradrop.lib.errors import DescriptorError

CASES = Path(__file__).parent / "descriptors"
GOOD = sorted(path.stem for path in CASES.glob("*.json"))
BAD = sorted(path.stem for path in CASES.glob("*.txt"))


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CASES / f"{name}.yaml").read_text()))


def test_every_case_is_used() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} == set(GOOD) | set(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_conversion_to_the_newer_form(name: str) -> None:
    source = load(name)
    before = copy.deepcopy(source)
    assert descriptor.convert(source) == json.loads((CASES / f"{name}.json").read_text())
    assert source == before


@pytest.mark.parametrize("name", GOOD)
def test_the_newer_form_says_the_same(name: str) -> None:
    found = descriptor.parse(load(name))
    assert descriptor.parse(found.document()) == found


@pytest.mark.parametrize("name", BAD)
def test_all_mistakes_at_once(name: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        descriptor.parse(load(name))
    assert caught.value.mistakes == (CASES / f"{name}.txt").read_text().splitlines()


def test_the_dockerfile_may_be_text_on_the_wire() -> None:
    (service,) = descriptor.parse({"name": "ab", "dockerfile": "FROM scratch\n"}).services
    assert (service.type, service.dockerfile) == ("inline", "FROM scratch\n")


def test_networks_can_do_without_what_the_chute_is_built_from() -> None:
    source = {"name": "ab", "net": {"w": {"type": "wifi", "intfName": "wlan0", "ssid": "x"}}}
    assert descriptor.mistakes(source) == ["dockerfile: missing; say what the chute is built from"]
    assert len(descriptor.parse(source, complete=False).interfaces) == 1


@pytest.mark.parametrize(("ssid", "mistake"), [
    ("x" * 32, None), ("é" * 16, None), ("é" * 17, "longer than 32 bytes"), ("", "empty"),
    ("a\nwpa=0", "holds control characters"), (12345678, "must be text; put it in quotes"), (None, "missing"),
])
def test_ssid(ssid: object, mistake: str | None) -> None:
    found = descriptor.mistakes({"name": "ab", "dockerfile": "FROM x", "net": {
        "wifi": {"type": "wifi", "intfName": "wlan0", "ssid": ssid}}})
    assert found == ([f"net.wifi.ssid: {mistake}"] if mistake else [])


def test_the_routers_own_network_has_no_place_for_interfaces() -> None:
    (mistake,) = descriptor.mistakes({"name": "ab", "services": {"main": {
        "interfaces": {"v0": {"type": "vlan", "vlan-id": 5}}, "requests": {"network-mode": "host"}}}})
    assert mistake.startswith("services.main: there can be no interfaces")


@pytest.mark.parametrize(("field", "value"), [
    ("image_version", "3\nRUN evil"), ("image_source", "x\nRUN evil"), ("packages", ["a b"]), ("packages", ["-x"]),
    ("use", "python\nUSER root"), ("dataDir", "/data:/host"), ("dataDir", "/../etc"), ("systemDir", "//"),
    ("name", "../x"), ("name", "a\nconfig b"), ("version", "1\n"),
])
def test_nothing_can_be_smuggled_into_what_is_written(field: str, value: object) -> None:
    source = {"name": "ab", "type": "light", "use": "python3", "command": "x", field: value}
    (mistake,) = descriptor.mistakes(source)
    assert mistake.startswith(field)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8)
known = st.sampled_from(["name", "net", "firewall", "host_config", "services", "config", "web", "dockerfile", "source",
                         "environment", "resources", "download", "command", "version", "date", "type", "image"])


def read_or_refuse(source: dict[str, Any]) -> None:
    try:
        found = descriptor.parse(source)
    except DescriptorError as error:
        assert all(": " in mistake for mistake in error.mistakes)
    else:
        assert descriptor.parse(found.document()) == found


@given(st.dictionaries(known, anything))
def test_nonsense_is_a_mistake_never_a_crash(source: dict[str, Any]) -> None:
    read_or_refuse(source)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A good descriptor with one value, somewhere, replaced."""
    source = load(draw(st.sampled_from(GOOD)))
    place: Any = source
    while True:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        place[key] = draw(anything)
        return source


@given(spoiled())
def test_a_spoiled_descriptor_is_read_or_refused(source: dict[str, Any]) -> None:
    read_or_refuse(source)


@pytest.mark.parametrize("source", [None, [], "text", 5])
def test_what_is_no_mapping_is_one_mistake_more(source: Any) -> None:
    with pytest.raises(DescriptorError, match="descriptor: must be a mapping|name: missing"):
        descriptor.parse(source)
