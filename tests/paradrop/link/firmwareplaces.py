"""Where tests put the firmware's files."""

from pathlib import Path

from paradrop.lib import settings


def place_firmware(home: Path) -> None:
    """Put the firmware's keyring, settings and releases below HOME, where there is none yet."""
    for name, place in (("TARGET", "firmware"), ("KEYRING", "fussy/keys"), ("SETTINGS", "fussy/update.toml")):
        settings.addSetting(f"FIRMWARE_{name}", str(home / place))
