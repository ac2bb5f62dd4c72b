import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci, ucitext
from paradrop.lib.utils.uci import UCIConfig

CASES = Path(__file__).parent / "uci"

values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
words = values.filter(bool)
comments = values.map(lambda text: text.replace("\n", " ").strip(" \t\r\f\v")).filter(bool)
titles = st.fixed_dictionaries({"type": words}, optional={"name": words, "comment": comments})


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(words.filter(lambda key: key != "list"), unique=True, max_size=5))
    options: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    for key in keys:
        if draw(st.booleans()):
            options[key] = draw(values)
        else:
            lists[key] = draw(st.lists(values, min_size=1, max_size=3))
    return options | ({"list": lists} if lists else {})


sections = st.lists(st.tuples(titles, bodies()), max_size=5)


@given(sections)
def test_what_is_written_is_read_again(config: list[uci.Section]) -> None:
    document = ucitext.Document(config)
    assert ucitext.parse(ucitext.render(document)).sections == config


@given(values)
def test_no_text_but_only_good_or_refused(text: str) -> None:
    try:
        document = ucitext.parse(text)
    except ParadropError:
        return
    assert ucitext.parse(ucitext.render(document)) == document


@given(values)
def test_no_value_makes_a_section(value: str) -> None:
    hostile = [({"type": "wifi-iface"}, {"ssid": value, "list": {"x": [value]}})]
    assert len(ucitext.parse(ucitext.render(ucitext.Document(hostile))).sections) == 1


@pytest.mark.parametrize("value", ["'\nconfig interface evil\n", "\\'", "a'; config x", "\r\nconfig x", "\"\n#"])
def test_known_attacks(value: str, tmp_path: Path) -> None:
    file = UCIConfig(tmp_path / "wireless")
    file.addConfig({"type": "wifi-iface", "comment": "chute"}, {"ssid": value})
    file.save()
    again = UCIConfig(tmp_path / "wireless")
    assert again.config == [({"type": "wifi-iface", "comment": "chute"}, {"ssid": value})]


@pytest.mark.parametrize(("config", "options"), [
    ({"type": "a", "comment": "x\nconfig b"}, {}), ({"type": "a", "comment": " x"}, {}),
    ({"type": ""}, {}), ({"type": "a"}, {"k": "\0"}), ({"type": "a"}, {"": "v"}),
])
def test_what_cannot_be_written_leaves_the_file_alone(config: Any, options: Any, tmp_path: Path) -> None:
    (tmp_path / "network").write_text("config interface lan\n")
    file = UCIConfig(tmp_path / "network")
    file.addConfig(config, options)
    with pytest.raises(ParadropError, match="cannot write"):
        file.save("token")
    assert (tmp_path / "network").read_text() == "config interface lan\n"


def test_golden(tmp_path: Path) -> None:
    place = tmp_path / "network"
    place.write_bytes((CASES / "openwrt.in").read_bytes())
    UCIConfig(place).save()
    assert place.read_text() == (CASES / "openwrt.out").read_text()
    UCIConfig(place).save()
    assert place.read_text() == (CASES / "openwrt.out").read_text()


@pytest.mark.parametrize(("text", "message"), [
    ("option a b\n", "f:1: option a comes before any section"),
    ("config a\n\n\toption x\n", "f:3: 'option x' is neither"),
    ("config a\n\toption x a b\n", "f:2: "),
    ("config\n", "f:1: "),
    ("nonsense\n", "f:1: "),
    ("config a\n\toption x 'abc\n", "f:2: ' without its end"),
    ("config a\n\toption list x\n", "f:2: an option cannot be called list"),
    ("config a\n\toption x '1\n2'\n\tbad\n", "f:4: "),
    ("config \0", "f: it holds a NUL"),
])
def test_mistakes_name_their_line(text: str, message: str) -> None:
    with pytest.raises(ParadropError) as caught:
        ucitext.parse(text, "f")
    assert message in caught.value.message


def test_an_option_and_a_list_of_one_name() -> None:
    text = "config a\n\toption x 1\n\tlist x 2\n\tlist y 1\n\toption y 2\n"
    assert ucitext.parse(text).sections == [({"type": "a"}, {"list": {"x": ["1", "2"]}, "y": "2"})]


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    place = tmp_path / "wireless"
    place.write_bytes(b"config wifi-iface\n\toption ssid '\xff\xfe\xc3\xa9'\n\n")
    UCIConfig(place).save()
    assert place.read_bytes() == b"config wifi-iface\n\toption ssid '\xff\xfe\xc3\xa9'\n\n"


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    assert UCIConfig(tmp_path / "new" / "dhcp").config == []
    assert (tmp_path / "new" / "dhcp").read_text() == ""


def test_sections_come_and_go(tmp_path: Path) -> None:
    file = UCIConfig(tmp_path / "network")
    one = ({"type": "interface", "name": "a", "comment": "x"}, {"mtu": "1500", "list": {"dns": ["1"]}})
    two = ({"type": "interface", "name": "b"}, {"masq": True, "dns": [1, 2], "nothing": None, "list": {"none": []}})
    file.addConfigs([one, two, two])
    file.addConfig(one[0], {"mtu": 1500, "list": {"dns": [1]}})
    assert file.config == [one, ({"type": "interface", "name": "b"}, {"masq": "1", "list": {"dns": ["1", "2"]}})]
    assert file.existsConfig(*two)
    assert file.getConfig(one[0]) == [one]
    assert file.getConfig({"type": "interface", "name": "a"}) == []
    assert file.getConfigIgnoreComments({"type": "interface", "name": "a"}) == [one]
    assert file.getChuteConfigs("x") == [one]
    file.delConfigs(file.config)
    file.delConfig(*one)
    assert file.config == []


def test_equality_ignores_order_but_not_number(tmp_path: Path) -> None:
    a, b = UCIConfig(tmp_path / "f"), UCIConfig(tmp_path / "f")
    a.config = [({"type": "x"}, {}), ({"type": "y"}, {})]
    b.config = [({"type": "y"}, {}), ({"type": "x"}, {})]
    assert a == b
    b.config = [*b.config, ({"type": "x"}, {})]
    assert a != b
    assert a != UCIConfig(tmp_path / "g")


def test_helpers() -> None:
    a = ({"type": "x", "comment": "c"}, {"n": 1})
    b = ({"type": "x"}, {"n": "1"})
    assert uci.isMatchIgnoreComments(a[0], b[0]) and not uci.isMatch(a[0], b[0])
    assert not uci.singleConfigMatches(a, b)
    assert uci.singleConfigMatches(a, (a[0], {"n": "1"}))
    assert uci.configsMatch([a], [b, a]) and not uci.configsMatch([a, b], [a])
    assert uci.chuteConfigsMatch([a, b], [b, a]) and not uci.chuteConfigsMatch([a], [a, a])
    assert uci.stringify({"a": [1, (True, "x")]}) == {"a": ["1", ("1", "x")]}


def test_wan_is_there_once(tmp_path: Path) -> None:
    file = UCIConfig(tmp_path / "network")
    default = ({"type": "interface", "name": "wan", "comment": "id"}, {"ifname": "eth0", "proto": "dhcp"})
    own = ({"type": "interface", "name": "wan"}, {"ifname": "eth7", "proto": "dhcp"})
    file.checkWanConfig("id")
    file.checkWanConfig("id")
    assert file.config == [default]
    file.addConfig(*own)
    file.checkWanConfig("id")
    assert file.config == [own]


def test_system_path(home: Path) -> None:
    assert uci.getSystemPath("network") == f"{home}/config/network"
    assert (home / "config").is_dir()
    assert uci.setupArgParse().parse_args([]).file == f"{home}/config/network"


@pytest.mark.usefixtures("home")
class TestBackup:
    def write(self, text: str) -> Path:
        place = Path(uci.getSystemPath("network"))
        place.write_text(text)
        return place

    def test_brings_back_what_was_on_disk(self) -> None:
        place = self.write("config a\n# kept as it is\n")
        file = UCIConfig(place)
        file.addConfig({"type": "b"}, {})
        file.save(backupToken="t")
        assert len(UCIConfig(place).config) == 2
        file.restore("t")
        assert place.read_text() == "config a\n# kept as it is\n"
        assert file.config == [({"type": "a"}, {})]
        file.restore("t", saveBackup=False)
        with pytest.raises(ParadropError, match="there is no backup"):
            file.restore("t")

    def test_each_is_fresh(self) -> None:
        place = self.write("config a\n")
        file = UCIConfig(place)
        file.backup("t")
        place.write_text("config b\n")
        file.backup("t")
        file.restore("t")
        assert place.read_text() == "config b\n"
        file.dropBackup("t")
        file.dropBackup("t")
        assert os.listdir(settings.UCI_BACKUP_DIR) == []

    @pytest.mark.parametrize("token", ["", "../x", "/etc/passwd"])
    def test_a_token_is_no_path(self, token: str) -> None:
        with pytest.raises(ParadropError, match="name of a backup"):
            UCIConfig(self.write("")).backup(token)


def test_two_hundred_sections_are_read_quickly(tmp_path: Path, benchmark_seconds: float = 0.2) -> None:
    import time
    file = UCIConfig(tmp_path / "network")
    file.config = [({"type": "interface", "name": f"v{i}", "comment": "c"},
                    {"proto": "static", "ipaddr": "10.0.0.1", "netmask": "255.255.255.0", "ifname": f"v{i}"})
                   for i in range(200)]
    file.save()
    start = time.process_time()
    UCIConfig(tmp_path / "network")
    assert time.process_time() - start < benchmark_seconds
