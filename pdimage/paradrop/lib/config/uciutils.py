"""Helpers to put the sections of a chute into UCI files, and to take that back.

All files are changed in the same way: first the file is kept as a backup named TOKEN, also if nothing will change, so
that restoreConfigFile never finds an older one.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

log = logging.getLogger(__name__)

TOKEN = "paradrop"


def setList(options: dict[str, Any], name: str, values: Iterable[Any]) -> None:
    """Set a list option of a UCI section."""
    options.setdefault("list", {})[name] = list(values)


def appendListItem(options: dict[str, Any], name: str, value: Any) -> None:
    """Add an item to a list option of a UCI section."""
    options.setdefault("list", {}).setdefault(name, []).append(value)


def setConfig(chute: Chute, old: Chute | None, cacheKeys: Iterable[str], filepath: str) -> bool:
    """Make the sections that a chute has in a UCI file be those of its cache.

    Args:
        chute: the chute as it shall be; its cached sections get its name as comment.
        old: the chute as it was. What counts is what the file says, so it may be None.
        cacheKeys: where in the cache the lists of sections are.
        filepath: the file.

    Returns:
        True if the file was changed.

    Raises:
        ParadropError: the file is not UCI, or a section cannot be written. The file is untouched.
        OSError: it cannot be read or written.
    """
    file = uci.UCIConfig(filepath)
    file.backup(TOKEN)
    wanted = owned(chute, cacheKeys)
    there = file.getChuteConfigs(str(chute.name))
    if uci.chuteConfigsMatch(there, wanted):
        return False
    file.delConfigs(there)
    file.addConfigs(wanted)
    file.save()
    return True


def removeConfigs(chute: Chute, cacheKeys: Iterable[str], filepath: str) -> bool:
    """Remove from a UCI file the sections that a chute's cache lists. Return True if the file was changed.

    Raises:
        ParadropError, OSError: as setConfig.
    """
    file = uci.UCIConfig(filepath)
    file.backup(TOKEN)
    before = len(file.config)
    file.delConfigs(owned(chute, cacheKeys))
    if len(file.config) == before:
        return False
    file.save()
    return True


def restoreConfigFile(chute: Chute, configname: str) -> None:
    """Put back a UCI file as it was before this update changed it, once; a second call finds nothing to do.

    Args:
        chute: whose update it is, for messages.
        configname: network, wireless, firewall or dhcp.
    """
    try:
        uci.UCIConfig(uci.getSystemPath(configname)).restore(TOKEN, saveBackup=False)
    except ParadropError as error:
        log.info("%s: %s; it was not changed, then", chute, error.message)


def dropBackups(confignames: Iterable[str]) -> None:
    """Remove the backups of an update that ended well."""
    for name in confignames:
        (Path(settings.UCI_BACKUP_DIR) / f"{name}-{TOKEN}").unlink(missing_ok=True)


def owned(chute: Chute, cacheKeys: Iterable[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the sections of some lists in a chute's cache, with the chute's name as comment."""
    return [({**config, "comment": str(chute.name)}, options)
            for key in cacheKeys for config, options in chute.getCache(key) or []]
