"""The manager: it knows the sections in force, reads the files, and brings the system from the one to the other."""

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paradrop.backend.pdconfd.config.base import ConfigError, ConfigObject
from paradrop.backend.pdconfd.config.change import Configs, affected, transition
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.dhcp import ConfigDhcp, ConfigDnsmasq, ConfigDomain
from paradrop.backend.pdconfd.config.effects import StartDaemon, Step
from paradrop.backend.pdconfd.config.execute import Executor
from paradrop.backend.pdconfd.config.firewall import ConfigForwarding, ConfigRedirect, ConfigZone
from paradrop.backend.pdconfd.config.journal import Journal
from paradrop.backend.pdconfd.config.network import ConfigInterface
from paradrop.backend.pdconfd.config.run import Runner, daemon_pid
from paradrop.backend.pdconfd.config.wireless import ConfigWifiDevice, ConfigWifiIface
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

log = logging.getLogger(__name__)

TYPES: dict[str, type[ConfigObject]] = {
    "dhcp": ConfigDhcp,
    "dnsmasq": ConfigDnsmasq,
    "domain": ConfigDomain,
    "forwarding": ConfigForwarding,
    "interface": ConfigInterface,
    "redirect": ConfigRedirect,
    "wifi-device": ConfigWifiDevice,
    "wifi-iface": ConfigWifiIface,
    "zone": ConfigZone,
}


@dataclass(frozen=True)
class Rejected:
    """A section, or a whole file (type ``file``), that could not be read."""

    source: str
    typename: str
    name: str
    comment: str | None
    problem: str


def findConfigFiles(search: str | None = None) -> list[str]:
    """Look for and return a list of configuration files.

    The behavior depends on whether the search argument is a file, a directory, or None.

    If search is None, return a list of files in the system config directory. If search is a file name (not a path),
    look for it in the working directory first, and the system directory second. If search is a full path to a file,
    and it exists, then return that file. If search is a directory, return the files in that directory. Files whose
    names begin with a dot do not count.
    """
    if search is None:
        search = uci.getSystemConfigDir()
    places = [Path(search)]
    if "/" not in search:
        places.append(Path(uci.getSystemConfigDir()) / search)
    for place in places:
        if place.is_dir():
            return [str(path) for path in sorted(place.iterdir()) if path.is_file() and path.name[0] != "."]
        if place.is_file():
            return [str(place)]
    return []


def sortCommands(commands: Iterable[Command]) -> list[Command]:
    """Return commands in order by priority.

    The input should be a list of command objects. The output is the same commands in order according to priority
    (ascending). For ties, the order from the original list is maintained.
    """
    return sorted(commands, key=lambda command: command.priority)


class ConfigManager:
    """Holds the configuration in force.

    Its methods can be called from any thread; one load runs at a time.

    Args:
        writeDir: where the daemons' files and the journal go.
        execCommands: False makes every load a dry one: commands are worked out and not run.
        runner: what runs the commands.
    """

    def __init__(self, writeDir: str, execCommands: bool = True, runner: Runner | None = None) -> None:
        self.writeDir = str(writeDir)
        self.execCommands = execCommands
        self.runner = runner or Runner()
        self.ipv6 = Path("/proc/net/if_inet6").exists()
        self.currentConfig: Configs = {}
        self.rejected: list[Rejected] = []
        self.previousCommands: list[Command] = []
        self.systemUp = threading.Event()
        self._shared: dict[Step, Command] = {}
        self._lock = threading.RLock()
        self._executor = Executor(self.runner, Journal(f"{self.writeDir}/journal"))

    def changingSet(self, files: Iterable[str]) -> set[ConfigObject]:
        """Return the sections from the current configuration that may have changed.

        This checks which sections from the current configuration came from files in the given file list. These are
        sections that may be changed or removed when we reload the files.
        """
        sources = set(files)
        return {config for config in self.currentConfig.values() if config.source in sources}

    def findMatchingConfig(self, config: ConfigObject, byName: bool = False) -> ConfigObject | None:
        """Check the current config for an identical section.

        Returns the matching object or None. Sections match if their options do and, unless both are anonymous, their
        names; with byName, type and name are enough. Anonymous ones must come from the same file and belong to the same
        owner.
        """
        if byName:
            return self.currentConfig.get(config.getTypeAndName())
        wanted = config.identity
        return next((other for other in self.currentConfig.values() if other.identity == wanted), None)

    def readConfig(self, files: Iterable[str]) -> Iterator[ConfigObject]:
        """Load configuration files and return configuration objects.

        This method only loads the configuration files without making any changes to the system and returns
        configuration objects as a generator. Sections of unknown types are left out; what cannot be used is left
        out, too, and shows as a failure in statusString(). A section that says what it said at the last load comes
        back as the object in force.
        """
        unchanged: dict[tuple[str, str, str | None], list[ConfigObject]] = defaultdict(list)
        for current in reversed(self.currentConfig.values()):
            unchanged[current.source, str(current.typename), current.section[0].get("name")].append(current)
        for path in files:
            self.rejected = [entry for entry in self.rejected if entry.source != path]
            try:
                sections = uci.UCIConfig(path).config
            except (ParadropError, OSError) as error:
                self._reject(path, "file", Path(path).name, None, str(error))
                continue
            for config, options in sections:
                kind, comment = config["type"], config.get("comment")
                if kind not in TYPES:
                    log.warning("%s: sections of type %s are not for us", path, kind)
                    continue
                same = unchanged[path, kind, config.get("name")]
                if same and same[-1].section == (config, options):
                    yield same.pop()
                    continue
                try:
                    built = TYPES[kind].build(self, path, config.get("name"), options, comment)
                except ConfigError as error:
                    name = config.get("name") or str(options.get("name", ""))
                    self._reject(path, kind, name, comment, error.message)
                    continue
                built.section = config, options
                yield built

    def _reject(self, source: str, typename: str, name: str, comment: str | None, problem: str) -> None:
        log.warning("%s: %s", source, problem)
        self.rejected.append(Rejected(source, typename, name, comment, problem))

    def loadConfig(self, search: str | None = None, execute: bool = True) -> None:
        """Load configuration files and apply changes to the system.

        We process the configuration files in sections. Each section corresponds to an interface, firewall rule, DHCP
        server instance, etc. Each time we reload configuration files after the initial time, we check for changes
        against the current configuration. Here is the decision tree for handling differences in the newly loaded
        configuration vs. the existing configuration:

        Section exists in current config (by type and name)?
          - No -> Add section, apply changes, and stop.
          - Yes -> Continue.
        Section is identical to the one in the current config (by option values)?
          - No -> Revert current section, mark any affected dependents, add new section, apply changes, and stop.
          - Yes -> Continue.
        Section has not changed but one of its dependencies has?
          - No -> Stop.
          - Yes -> Revert current section, mark any affected dependents, add new section, apply changes, and stop.

        Reverting and applying leave out what both have in common, so a daemon whose configuration comes out the same
        is not restarted. All reverting comes before all applying; each in order of priority. A command that fails
        does not keep the others from running. A daemon that died, or did not start, is started again. A file that
        cannot be read leaves the sections that came from it as they are.
        """
        with self._lock:
            try:
                self._load(search, execute and self.execCommands)
            finally:
                self.systemUp.set()

    def _load(self, search: str | None, execute: bool) -> None:
        if execute:
            self._executor.recover()
        files = findConfigFiles(search)
        loaded = list(self.readConfig(files))
        unreadable = {entry.source for entry in self.rejected if entry.typename == "file"}
        gone = self._vanished(search)
        self.rejected = [entry for entry in self.rejected if entry.source not in gone]
        replaced = self.changingSet({*files, *gone} - unreadable)
        old, new = self.currentConfig, self._merge(loaded, replaced)
        changed = {key: config for key, config in old.items() if new.get(key) is not config}
        added = {key: config for key, config in new.items() if old.get(key) is not config}
        redo = affected(new.values(), changed) | affected(new.values(), added) | set(added.values())
        redo |= self._without_daemon(new.values()) if execute else set()
        change = transition(old, new, redo, self._shared)
        self.currentConfig = new
        self._run([*sortCommands(change.undo), *sortCommands(change.apply)], execute)

    def _vanished(self, search: str | None) -> set[str]:
        """Return the files of current sections that the search means and that exist no more."""
        sources = {config.source for config in self.currentConfig.values()} | {entry.source for entry in self.rejected}
        return {source for source in sources if not Path(source).exists()
                and (search is None or search in (source, str(Path(source).parent), Path(source).name))}

    def _merge(self, loaded: list[ConfigObject], replaced: set[ConfigObject]) -> Configs:
        """Return all wanted sections; those that did not change are the objects of the current configuration."""
        new = {key: config for key, config in self.currentConfig.items() if config not in replaced}
        same: dict[Hashable, list[ConfigObject]] = defaultdict(list)
        changing = replaced.difference(loaded)
        for config in self.currentConfig.values():
            if config in changing:
                same[config.identity].append(config)
        for config in loaded:
            if config not in replaced and (found := same[config.identity]):
                found[0].comment, found[0].source = config.comment, config.source
                config = found.pop(0)
            key = config.getTypeAndName()
            if key in new:
                log.warning("%s: there are two sections %s %s, the later one counts", config.source, *key)
            new[key] = config
        return new

    def _without_daemon(self, configs: Iterable[ConfigObject]) -> set[ConfigObject]:
        """Return the sections with a daemon that did not start, or is not there any more; the latter counts as failed.
        """
        found = set()
        for config in configs:
            for command in config.applied:
                effect = command.effect
                if isinstance(effect, StartDaemon) and command.result is not None \
                        and daemon_pid(effect.pidfile, effect.conf) is None:
                    if command.success():
                        log.warning("%s: process %s has died", command, command.pid)
                        command.result, command.said = 1, "the daemon has died"
                    found.add(config)
        return found

    def unload(self, execute: bool = True) -> None:
        """Take everything back; the system is as if nothing had been loaded."""
        with self._lock:
            execute = execute and self.execCommands
            if execute:
                self._executor.recover()
            change = transition(self.currentConfig, {}, (), self._shared)
            self.currentConfig, self.rejected = {}, []
            self._run(sortCommands(change.undo), execute)

    def _run(self, commands: list[Command], execute: bool) -> None:
        self.previousCommands = commands
        if execute:
            self.execute(commands)

    def execute(self, commands: Iterable[Command]) -> None:
        """Run commands one after the other, in the order given. Failures are kept in the commands and logged."""
        self._executor.runner = self.runner
        self._executor.execute(commands)

    def getPreviousCommands(self) -> list[Command]:
        """Get the most recent command list."""
        return self.previousCommands

    def statusString(self) -> str:
        """Return a JSON string representing status of the system.

        The format will be a list of dictionaries. Each dictionary corresponds to a configuration block and contains
        at the following fields:

        type: interface, wifi-device, etc.
        name: name of the section (may be autogenerated for some configs)
        comment: comment from the configuration file or None
        success: True if all setup commands succeeded
        error: what went wrong, or None
        """
        with self._lock:
            status = [{"type": config.typename, "name": config.name, "comment": config.comment,
                       "success": failure is None, "error": failure}
                      for config in self.currentConfig.values() for failure in (config.failure(),)]
            status += [{"type": entry.typename, "name": entry.name, "comment": entry.comment,
                        "success": False, "error": entry.problem} for entry in self.rejected]
        return json.dumps(status)

    def waitSystemUp(self, timeout: float | None = None) -> str:
        """Wait for the first load to complete and return system status string.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds, if given.
        """
        if not self.systemUp.wait(timeout):
            raise TimeoutError(f"cannot report the configuration: it is not loaded after {timeout:g} s")
        return self.statusString()
