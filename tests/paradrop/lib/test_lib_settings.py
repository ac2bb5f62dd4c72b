from pathlib import Path

import pytest

from paradrop.lib import settings

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(("text", "value"), [
    ("True", True), ("true", True), ("False", False), ("false", False), ("None", None), ("none", None),
    ("5", 5), ("-5", -5), ("5.5", 5.5), ("192.168.1.1", "192.168.1.1"), ("", ""), ("a b", "a b"),
])
def test_values(text: str, value: object) -> None:
    assert settings.parseValue(text) == value


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDFCD_PORT", "3")
    monkeypatch.setenv("VERBOSE", "")
    settings.updateSettings(["PDFCD_PORT:1", "VERBOSE:True", "NEW:http://a:1"])
    assert (settings.PDFCD_PORT, settings.VERBOSE) == (3, True)
    assert vars(settings)["NEW"] == "http://a:1"


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('# words\n\nLOG_PATH "/a b"\nPDFCD_PORT 7\n')
    settings.updateSettings(file)
    assert (settings.LOG_PATH, settings.PDFCD_PORT) == ("/a b", 7)


def test_paths_follow_their_root() -> None:
    settings.updateSettings(["CONFIG_HOME_DIR:/x", "LOG_PATH:/l"])
    assert settings.FC_CHUTESTORAGE_SAVE_PATH == "/x/chutes"
    assert settings.LOG_PATH == "/l"


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="not KEY:value"):
        settings.updateSettings(["VERBOSE"])


def test_relocate_moves_every_path(home: Path) -> None:
    left = {name: value for name, value in vars(settings).items() if name.isupper() and isinstance(value, str)
            and value.startswith(("/var/", "/etc/", "/opt/", "/tmp/")) and not value.startswith(str(home))}
    assert left == {}
