"""This module listens for D-Bus messages, or on a local socket, and triggers reloading of configuration files.

This module is the service side of the implementation. If you want to issue reload commands to the service, see the
`client.py` file instead.

Operation:
- When triggered, read in UCI configuration files.
- Pass sections off to appropriate handlers (interface, etc.).
- Perform some validation (check for required options).
- Emit commands (start/stop daemon, ip, iw, etc.) into a queue.
- Issue commands; a section that fails shows it in the status and does not keep the others from being applied.
- Update known state of the system.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from paradrop.backend.pdconfd import bus, wire
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.lib import settings

log = logging.getLogger(__name__)


class ConfigService:
    """What can be asked of pdconfd, whichever way the question comes."""

    #: The manager that does the work, once listen() was called in this process.
    configManager: ClassVar[ConfigManager | None] = None

    dbusInterfaces: ClassVar[list[bus.Interface]] = [bus.Interface(bus.NAME, (
        bus.Method("Reload", "s", "s"),
        bus.Method("ReloadAll", "", "s"),
        bus.Method("Test", "", "b"),
        bus.Method("UnloadAll", "", "b"),
        bus.Method("WaitSystemUp", "", "s"),
    ))]

    def dbus_Reload(self, name: str) -> str:
        """Load the files that a name means (see findConfigFiles) and return the status string."""
        manager = self._manager()
        manager.loadConfig(name)
        return manager.statusString()

    def dbus_ReloadAll(self) -> str:
        """Load all files of the system configuration directory and return the status string."""
        manager = self._manager()
        manager.loadConfig()
        return manager.statusString()

    def dbus_Test(self) -> bool:
        """Return True: the service answers."""
        return True

    def dbus_UnloadAll(self) -> bool:
        """Take all configuration back; returns True."""
        self._manager().unload()
        return True

    def dbus_WaitSystemUp(self) -> str:
        """Wait for the first load to end and return the status string."""
        return self._manager().waitSystemUp()

    def answer(self, method: str, arguments: Sequence[Any]) -> Any:
        """Call a method by its name on the wire.

        Raises:
            ValueError: there is no such method, or it takes other arguments.
        """
        known = {method.name: method for interface in self.dbusInterfaces for method in interface.methods}
        if method not in known or len(arguments) != len(known[method].takes) \
                or not all(isinstance(argument, str) for argument in arguments):
            raise ValueError(f"there is no method {method} with {len(arguments)} texts")
        return getattr(self, f"dbus_{method}")(*arguments)

    def _manager(self) -> ConfigManager:
        if self.configManager is None:
            raise RuntimeError("cannot change the configuration: pdconfd is not running")
        return self.configManager


class Listening:
    """A service that listens; close() ends that and takes all configuration back."""

    def __init__(self, manager: ConfigManager, dbus: bool) -> None:
        service = ConfigService()
        self.manager = manager
        self._socket = wire.SocketServer(wire.socket_path(), service.answer)
        try:
            self._bus = bus.Bus(service.dbusInterfaces[0], service.answer) if dbus else None
        except Exception:
            self._socket.server_close()
            raise
        ConfigService.configManager = manager
        self._socket.start()

    def close(self, unload: bool = True) -> None:
        """Stop answering; then take the configuration back, unless told to leave it."""
        if self._bus:
            self._bus.close()
        self._socket.close()
        if ConfigService.configManager is self.manager:
            ConfigService.configManager = None
        if unload:
            self.manager.unload()


def listen(manager: ConfigManager | None = None, dbus: bool = False) -> Listening:
    """Answer on the local socket, with dbus also on the system bus.

    Without a manager one is made for settings.PDCONFD_WRITE_DIR. Nothing is loaded yet.

    Raises:
        OSError: the socket cannot be made; perhaps another pdconfd runs.
        ParadropError: the system bus cannot be used.
    """
    return Listening(manager or ConfigManager(settings.PDCONFD_WRITE_DIR), dbus)


def run_pdconfd(dbus: bool = False) -> None:
    """Start pdconfd daemon.

    This enters the pdconfd main loop. It loads all configuration, and ends at SIGTERM or SIGINT, when all
    configuration has been taken back: a daemon that starts again over what it left finds a mess. Call it from the main
    thread.
    """
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.closing(listen(dbus=dbus)) as listening:
            listening.manager.loadConfig()
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_thread(manager: ConfigManager | None = None, dbus: bool = False) -> Listening:
    """Start pdconfd service as a thread.

    This function schedules pdconfd to run as a thread and returns immediately; the first load goes on meanwhile
    (waitSystemUp waits for it). The result's close() ends the service.
    """
    listening = listen(manager, dbus)
    threading.Thread(target=_first_load, args=[listening.manager], name="pdconfd", daemon=True).start()
    return listening


def _first_load(manager: ConfigManager) -> None:
    try:
        manager.loadConfig()
    except Exception:
        log.exception("cannot load the configuration")
