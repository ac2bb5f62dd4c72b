"""Asking pdconfd to load configuration, from this process or another.

The service is called directly if it runs in this process, over D-Bus if that is asked for, and over its local socket
otherwise.
"""

import logging
import threading
from concurrent.futures import Future
from typing import Any

from paradrop.backend.pdconfd import bus, wire
from paradrop.backend.pdconfd.main import ConfigService
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

#: Seconds to wait for an answer. A load runs many commands, each of which may take its own time limit.
TIMEOUT = 600.0


class Blocking:
    """Uses threading.Event to implement blocking on a future.

    The `wait` method will wait for its completion and return its result, or None if it failed.
    """

    def __init__(self, deferred: "Future[Any]") -> None:
        self._event = threading.Event()
        self._result: Any = None
        deferred.add_done_callback(self._finished)

    def _finished(self, deferred: "Future[Any]") -> None:
        error = deferred.exception()
        if error is not None:
            log.error("%s", error)
        self.unlock(None if error is not None else deferred.result())

    def unlock(self, result: Any) -> None:
        """Let the waiting go on, with that result."""
        self._result = result
        self._event.set()

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result; None after ``timeout`` seconds."""
        self._event.wait(timeout)
        return self._result


def callDeferredMethod(method: str, *args: str, dbus: bool = False) -> "Future[Any]":
    """Call a method of the service (Reload, ReloadAll, Test, UnloadAll, WaitSystemUp) in a thread of its own."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            result = _call(method, *args, dbus=dbus)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=call, name=f"pdconfd {method}", daemon=True).start()
    return future


def reload(path: str, dbus: bool = False) -> str | None:
    """Reload file(s) specified by path.

    This function blocks until the request completes. On completion it returns a status string, which is a JSON list of
    loaded configuration sections with a 'success' field. For critical errors such as failure to connect to the
    service, it will return None.
    """
    return _blocking("Reload", str(path), dbus=dbus)


def reloadAll(dbus: bool = False) -> str | None:
    """Reload all files from the system configuration directory.

    This function blocks until the request completes. On completion it returns a status string, which is a JSON list of
    loaded configuration sections with a 'success' field. For critical errors such as failure to connect to the
    service, it will return None.
    """
    return _blocking("ReloadAll", dbus=dbus)


def waitSystemUp(dbus: bool = False) -> str | None:
    """Wait for the configuration daemon to finish its first load.

    This function blocks until the request completes. On completion it returns a status string, which is a JSON list of
    loaded configuration sections with a 'success' field. For critical errors such as failure to connect to the
    service, it will return None.
    """
    return _blocking("WaitSystemUp", dbus=dbus)


def _call(method: str, *args: str, dbus: bool) -> Any:
    if dbus:
        return bus.ask(method, args, TIMEOUT)
    if ConfigService.configManager is not None:
        return ConfigService().answer(method, args)
    return wire.ask(wire.socket_path(), method, args, TIMEOUT)


def _blocking(method: str, *args: str, dbus: bool) -> str | None:
    try:
        answer = _call(method, *args, dbus=dbus)
    except (ParadropError, OSError) as error:
        log.error("%s", error)
        return None
    return str(answer)
