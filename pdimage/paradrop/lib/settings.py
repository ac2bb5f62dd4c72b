"""The settings of the runtime: one upper-case value each.

Read them when they are needed (``settings.PDFCD_PORT``), never ``from … import`` one: they may change. The order in
which a value is decided: the default here, then what updateSettings is given, then the environment variable of the
same name.

All files lie below two directories: CONFIG_HOME_DIR for what must survive a reboot, RUNTIME_HOME_DIR for what must not.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

CONFIG_HOME_DIR = "/var/lib/paradrop"
RUNTIME_HOME_DIR = "/var/run/paradrop"

DEBUG_MODE = False
VERBOSE = False

# The HTTP face: where it listens (addresses, separated by blanks), who may use /v1 without a password, and after how
# many wrong passwords an address has to wait
PDFCD_ADDRESS = "127.0.0.1"
PDFCD_PORT = 14321
PDFCD_HEADER_VALUE = "*"
PDFCD_V1_NETWORKS = "127.0.0.0/8 ::1/128"
PDFCD_FAILURE_LIMIT = 10
PDFCD_LOCAL_NETWORKS = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"  # what may be beside the router
PDFCD_HOST_NAMES = ""  # what the router's page may be asked for by, besides addresses and the host's own name

# The firmware that this runtime is part of: where its releases lie, what they are verified by, the updater's settings
FIRMWARE_TARGET = "/opt/firmware"
FIRMWARE_KEYRING = "/etc/fussy/keys"
FIRMWARE_SETTINGS = "/etc/fussy/update.toml"

# The server that this router belongs to, as https://host:port
PDSERVER_URL: str | None = None

# Updates and the chute store
FC_BOUNCE_UPDATE: str | None = None
FC_CHUTESTORAGE_SAVE_PATH = "/var/lib/paradrop/chutes"
FC_CHUTESTORAGE_SAVE_TIMER = 60
RESERVED_CHUTE = "__PARADROP__"
REJECT_DOWNGRADE = False

# UCI files and the daemon that turns them into commands
UCI_CONFIG_DIR = "/etc/config"
UCI_BACKUP_DIR = "/var/lib/paradrop/uci-backup"
PDCONFD_WRITE_DIR = "/var/run/paradrop/pdconfd"
PDCONFD_ENABLED = True
PDCONFD_START_TIMEOUT = 60  # seconds that the first configuration may take before chutes are started

# Networks: chutes get subnets of CHUTE_PREFIX_SIZE out of the pool, or out of the other one where it touches the WAN's
DYNAMIC_NETWORK_POOL = "192.168.128.0/17"
ALTERNATE_NETWORK_POOL = "10.128.0.0/9"
CHUTE_PREFIX_SIZE = 24
ALLOW_MONITOR_MODE = False

# Containers; {chute} stands for the chute's name. Times are seconds: for one answer of the engine, for the
# engine to start, for building or fetching an image, for a container to stop by itself, and how long a new one is
# watched for failing
DOCKER_BIN_DIR = "/usr/bin"
DOCKER_HOST = "unix:///var/run/docker.sock"
DOCKER_TIMEOUT = 30
DOCKER_START_TIMEOUT = 60
DOCKER_BUILD_TIMEOUT = 1800
DOCKER_STOP_TIMEOUT = 10
CHUTE_SETTLE_TIME = 1
DOCKER_CONFIG_FILE = "/etc/default/docker"
CHUTE_IMAGE_DIR = "/opt/firmware/current/share/oci"
INTERNAL_DATA_DIR = "/data"
EXTERNAL_DATA_DIR = "/var/lib/paradrop/data/{chute}"
INTERNAL_SYSTEM_DIR = "/paradrop"
EXTERNAL_SYSTEM_DIR = "/var/lib/paradrop/system/{chute}"

LOG_PATH = "/var/lib/paradrop/logs"

# What lies below the two directories and moves with them
_BELOW_CONFIG = {
    "FC_CHUTESTORAGE_SAVE_PATH": "chutes",
    "UCI_BACKUP_DIR": "uci-backup",
    "EXTERNAL_DATA_DIR": "data/{chute}",
    "EXTERNAL_SYSTEM_DIR": "system/{chute}",
    "LOG_PATH": "logs",
}
_BELOW_RUNTIME = {"PDCONFD_WRITE_DIR": "pdconfd"}
_ELSEWHERE = {
    "UCI_CONFIG_DIR": "config",
    "DOCKER_CONFIG_FILE": "docker.default",
    "FIRMWARE_TARGET": "firmware",
    "FIRMWARE_KEYRING": "fussy/keys",
    "FIRMWARE_SETTINGS": "fussy/update.toml",
    "CHUTE_IMAGE_DIR": "firmware/current/share/oci",
}

Value = str | int | float | bool | None


def parseValue(key: str) -> Value:
    """Return what the text of a setting means.

    >>> [parseValue(text) for text in ("True", "none", "12", "1.5", "192.168.1.1")]
    [True, None, 12, 1.5, '192.168.1.1']
    """
    constants: dict[str, Value] = {"True": True, "true": True, "False": False, "false": False,
                                   "None": None, "none": None}
    if key in constants:
        return constants[key]
    try:
        return float(key) if "." in key else int(key)
    except ValueError:
        return key


def addSetting(key: str, value: Value) -> None:
    """Set a setting, also one that did not exist."""
    setattr(sys.modules[__name__], key, value)


def updateSettings(slist: Iterable[str] | str | Path = ()) -> None:
    """Take settings from a list of ``KEY:value`` texts, or a file, and from the environment, which wins.

    A file holds one ``NAME value`` on a line, with ``#`` comments and optional quotes. An environment variable that is
    empty counts as absent. When CONFIG_HOME_DIR or RUNTIME_HOME_DIR changes, the paths below it follow, save those
    that the same call sets.

    Raises:
        ValueError: an item has no ``:``, a line no value.
        OSError: the file cannot be read.
    """
    if isinstance(slist, str | Path):
        given = dict(_split_line(line) for line in Path(slist).read_text().splitlines() if shlex.split(line, True))
    else:
        given = dict(_split_item(item) for item in slist)
    for name in {name for name in globals() if name.isupper() and not name.startswith("_")} | set(given):
        if os.environ.get(name):
            given[name] = os.environ[name]
    for root, below in (("CONFIG_HOME_DIR", _BELOW_CONFIG), ("RUNTIME_HOME_DIR", _BELOW_RUNTIME)):
        if root in given:
            for name, place in below.items():
                given.setdefault(name, f"{given[root]}/{place}")
    for name, text in given.items():
        addSetting(name, parseValue(text))


def trialDirectory() -> str:
    """Return where ``--local`` puts everything."""
    return "/tmp/paradrop"


def relocate(root: str | Path) -> None:
    """Put every file of the runtime below one directory, UCI files included, as tests and trial runs need it."""
    for setting, place in _ELSEWHERE.items():
        addSetting(setting, f"{root}/{place}")
    for name, below in (("CONFIG_HOME_DIR", _BELOW_CONFIG), ("RUNTIME_HOME_DIR", _BELOW_RUNTIME)):
        home = f"{root}/lib" if name == "CONFIG_HOME_DIR" else f"{root}/run"
        addSetting(name, home)
        for setting, place in below.items():
            addSetting(setting, f"{home}/{place}")


def _split_item(item: str) -> tuple[str, str]:
    key, colon, value = item.partition(":")
    if not colon or not key:
        raise ValueError(f"cannot read the setting {item!r}: it is not KEY:value")
    return key, value


def _split_line(line: str) -> tuple[str, str]:
    words = shlex.split(line, True)
    if len(words) != 2:
        raise ValueError(f"cannot read the setting {line!r}: it is not NAME value")
    return words[0], words[1]
