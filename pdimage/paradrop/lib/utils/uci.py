"""UCI configuration files, as OpenWrt keeps them in /etc/config.

A configuration is a list of sections, each a tuple of two dictionaries. For::

    config keyA valueA #owner
        option key1 'value1'
        list key2 'value1'
        list key2 'value2'

it is::

    [({'type': 'keyA', 'name': 'valueA', 'comment': 'owner'},
      {'key1': 'value1', 'list': {'key2': ['value1', 'value2']}})]

A section without name has no ``name`` key. The comment says who owns the section: a chute, or the router itself
(settings.RESERVED_CHUTE). Values are always texts; what is added with other values is made text by stringify.
"""

import argparse
import copy
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq, ucitext
from paradrop.lib.utils.ucitext import Config, Options, Section

log = logging.getLogger(__name__)


def getSystemConfigDir() -> str:
    """Return the directory of the router's UCI files, making it if it is missing."""
    pdosq.makedirs(settings.UCI_CONFIG_DIR)
    return settings.UCI_CONFIG_DIR


def getSystemPath(filename: str) -> str:
    """Return the path of a UCI file of the router: network, wireless, firewall, dhcp, qos, …"""
    return str(Path(getSystemConfigDir()) / filename)


def stringify(a: Any) -> Any:
    """Return a value with every number in it, at any depth, made text. True is ``1`` and False is ``0``."""
    if isinstance(a, Mapping):
        return {str(key): stringify(value) for key, value in a.items()}
    if isinstance(a, list | tuple):
        return type(a)(stringify(value) for value in a)
    return str(int(a)) if isinstance(a, bool) else str(a)


def isMatch(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return True if two dictionaries say the same once their values are text."""
    return a == b or bool(stringify(a) == stringify(b))


def isMatchIgnoreComments(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return True if two titles have the same type and name, whoever owns them."""
    return isMatch(*({key: value for key, value in title.items() if key != "comment"} for title in (a, b)))


def singleConfigMatches(a: tuple[Mapping[str, Any], Mapping[str, Any]],
                        b: tuple[Mapping[str, Any], Mapping[str, Any]]) -> bool:
    """Return True if two sections have the same title and options."""
    return isMatch(a[0], b[0]) and isMatch(a[1], b[1])


def configsMatch(a: Iterable[Section], b: Iterable[Section]) -> bool:
    """Return True if every section of a is in b."""
    there = {_key(section) for section in b}
    return all(_key(section) in there for section in a)


def chuteConfigsMatch(chutePre: Iterable[Section], chutePost: Iterable[Section]) -> bool:
    """Return True if two lists hold the same sections, in whatever order."""
    return Counter(map(_key, chutePre)) == Counter(map(_key, chutePost))


def setupArgParse() -> argparse.ArgumentParser:
    """Return the parser for programs that work on a UCI file: ``[--file PATH] [--token TOKEN]``."""
    parser = argparse.ArgumentParser(description="Read or change a UCI file")
    parser.add_argument("-f", "--file", default=getSystemPath("network"), help="the UCI file")
    parser.add_argument("-t", "--token", default=None, help="keep or take a backup copy under this name")
    return parser


def _key(section: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Any:
    """Return something hashable that is equal for sections that say the same."""
    config, options = _normal(*section)
    lists = frozenset((key, tuple(values)) for key, values in options.pop("list", {}).items())
    return frozenset(config.items()), frozenset(options.items()), lists


def _normal(config: Mapping[str, Any], options: Mapping[str, Any]) -> Section:
    """Return a section as it is kept: texts, lists under ``list``, nothing for None and empty lists."""
    plain: Options = {}
    lists: dict[str, list[str]] = {}
    for key, value in options.items():
        if key == "list" and not isinstance(value, Mapping):
            raise ParadropError("cannot keep an option called list: the name stands for the lists of a section")
        if key == "list":
            lists.update({name: stringify(list(values)) for name, values in value.items()})
        elif isinstance(value, list | tuple):
            lists[key] = stringify(list(value))
        elif value is not None:
            plain[key] = stringify(value)
    lists = {key: values for key, values in lists.items() if values}
    if lists:
        plain["list"] = lists
    return {key: str(value) for key, value in config.items() if value is not None}, plain


class UCIConfig:
    """One UCI file.

    Reading happens when the object is made; a missing file is made, empty. Changes are in memory until save().
    ``config`` is the list of sections. Comments that stand alone on a line are kept when the file is written again.

    Raises:
        ParadropError: the file is not UCI; the message says the line.
        OSError: it cannot be read or made.
    """

    def __init__(self, filepath: str | os.PathLike[str]) -> None:
        self.filepath = str(filepath)
        self.myname = Path(filepath).name
        self.config: list[Section] = []
        self._remarks: list[tuple[Section | None, list[str]]] = []
        if not Path(filepath).exists():
            pdosq.makedirs(Path(filepath).parent)
            Path(filepath).touch()
        self.readConfig()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UCIConfig):
            return NotImplemented
        return self.filepath == other.filepath and chuteConfigsMatch(self.config, other.config)

    __hash__ = None  # type: ignore[assignment]

    def readConfig(self) -> None:
        """Read the file again, forgetting what was changed in memory."""
        text = Path(self.filepath).read_bytes().decode("utf-8", "surrogateescape")
        document = ucitext.parse(text, self.filepath)
        self.config = document.sections
        places: list[Section | None] = [*document.sections, None]
        self._remarks = [(places[index], lines) for index, lines in document.remarks.items()]

    def save(self, backupToken: str | None = None, internalid: str | None = None) -> None:
        """Write the file at once or not at all.

        Args:
            backupToken: first keep the file as it is on disk as a backup of that name.
            internalid: kept for old callers; it has no effect.

        Raises:
            ParadropError: a section cannot be written as UCI; the file is untouched.
        """
        document = ucitext.Document(self.config, self._remark_lines())
        content = ucitext.render(document).encode("utf-8", "surrogateescape")
        if backupToken:
            self.backup(backupToken)
        pdosq.replaceFile(self.filepath, content)

    def backup(self, backupToken: str) -> None:
        """Keep the file as it is on disk, as settings.UCI_BACKUP_DIR/<file>-<token>. An older one goes first."""
        place = self._backup_path(backupToken)
        pdosq.makedirs(place.parent)
        place.unlink(missing_ok=True)
        pdosq.replaceFile(place, Path(self.filepath).read_bytes())

    def restore(self, backupToken: str, saveBackup: bool = True) -> None:
        """Put a backup in place of the file and read it.

        Args:
            backupToken: its name.
            saveBackup: False removes the backup afterwards.

        Raises:
            ParadropError: there is no such backup; the file is untouched.
        """
        place = self._backup_path(backupToken)
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            raise ParadropError(f"cannot restore {self.filepath}: there is no backup {place}") from None
        pdosq.replaceFile(self.filepath, content)
        if not saveBackup:
            place.unlink()
        self.readConfig()

    def dropBackup(self, backupToken: str) -> None:
        """Remove a backup, if there is one."""
        self._backup_path(backupToken).unlink(missing_ok=True)

    def addConfig(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Add a section, unless the same one is there. Lists may also be given as ``{'key': [value, …]}``."""
        if not self.existsConfig(config, options):
            self.config.append(_normal(config, options))

    def addConfigs(self, configs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Add a list of sections."""
        for config, options in configs:
            self.addConfig(config, options)

    def delConfig(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Remove a section that says the same. Nothing happens if there is none."""
        wanted = _normal(config, options)
        if wanted in self.config:
            self.config.remove(wanted)
        else:
            log.debug("%s has no section %s to remove", self.filepath, config)

    def delConfigs(self, configs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Remove a list of sections."""
        for config, options in list(configs):
            self.delConfig(config, options)

    def existsConfig(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
        """Return True if a section says the same."""
        return _normal(config, options) in self.config

    def getConfig(self, config: Mapping[str, Any]) -> list[Section]:
        """Return all sections with that title: same type, name and comment, or same lack of them."""
        return [section for section in self.config if isMatch(section[0], config)]

    def getConfigIgnoreComments(self, config: Mapping[str, Any]) -> list[Section]:
        """Return all sections with that type and name, whoever owns them."""
        wanted = {key: str(value) for key, value in config.items() if key != "comment"}
        return [section for section in self.config
                if {key: value for key, value in section[0].items() if key != "comment"} == wanted]

    def getChuteConfigs(self, internalid: str) -> list[Section]:
        """Return the sections that a chute owns: those whose comment is its name."""
        return [section for section in self.config if section[0].get("comment") == internalid]

    def checkWanConfig(self, internalid: str) -> None:
        """See to it that there is one ``interface wan``.

        Without any, the default one (eth0, by DHCP) is added, owned by internalid; with another one, the default goes.
        """
        default: Options = {"ifname": "eth0", "proto": "dhcp"}
        found = self.getConfigIgnoreComments({"type": "interface", "name": "wan"})
        others = [section for section in found if not isMatch(section[1], default)]
        if not found:
            self.addConfig({"type": "interface", "name": "wan", "comment": internalid}, default)
        surplus = found if others else found[1:]
        self.delConfigs(copy.deepcopy([section for section in surplus if isMatch(section[1], default)]))

    def _backup_path(self, token: str) -> Path:
        if not token or "/" in token:
            raise ParadropError(f"cannot use {token!r} as the name of a backup: it must be one word without /")
        return Path(settings.UCI_BACKUP_DIR) / f"{self.myname}-{token}"

    def _remark_lines(self) -> dict[int, list[str]]:
        """Return the free comments by the index of the section that they now stand before."""
        index = {id(section): position for position, section in enumerate(self.config)}
        lines: dict[int, list[str]] = {}
        for section, remarks in self._remarks:
            lines.setdefault(index.get(id(section), len(self.config)), []).extend(remarks)
        return lines


__all__ = ["Config", "Options", "Section", "UCIConfig", "chuteConfigsMatch", "configsMatch", "getSystemConfigDir",
           "getSystemPath", "isMatch", "isMatchIgnoreComments", "setupArgParse", "singleConfigMatches", "stringify"]
