"""The calls that tools make at ``/internal`` over XML-RPC, and the router's side of the link to its server."""

import functools
import logging
import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from paradrop.backend.pdfcd import identity
from paradrop.backend.pdfcd.journal import Journal
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

FAULT = 123
"""Code of the fault that a failed call answers with; the text is the error's."""
NOT_FOUND = 8001
"""Code of the fault for a call that does not exist."""
BAD_REQUEST = 400
RETRY_SECONDS = 3.0

Marshallable = Any


class Base:
    """An XML-RPC resource of a module's functions: each ``api_NAME`` is the procedure ``NAME``, and nothing else is."""

    def __init__(self, module: ModuleType, **kwargs: Any) -> None:
        """Take the functions of a module; ``kwargs`` are more procedures by their name."""
        found = {name.removeprefix("api_"): function for name, function in vars(module).items()
                 if name.startswith("api_") and callable(function)}
        self._procedures: dict[str, Callable[..., Any]] = {**found, **kwargs}

    def lookupProcedure(self, procedurePath: str) -> Callable[..., Any]:
        """Return the function of a procedure, made fit for the wire by apiWrapper.

        Raises:
            xmlrpc.client.Fault: there is no such procedure.
        """
        function = self._procedures.get(procedurePath)
        if function is None:
            raise xmlrpc.client.Fault(NOT_FOUND, f"procedure {procedurePath} not found")
        return apiWrapper(function)

    def render(self, body: bytes) -> bytes:
        """Return the XML-RPC answer to an XML-RPC request."""
        result: Marshallable
        try:
            arguments, name = xmlrpc.client.loads(body.decode())
            result = self.lookupProcedure(str(name))(*arguments)
        except xmlrpc.client.Fault as fault:
            result = fault
        except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError) as error:
            result = xmlrpc.client.Fault(BAD_REQUEST, f"not an XML-RPC request: {error}")
        if not isinstance(result, xmlrpc.client.Fault):
            result = (result,)
        return xmlrpc.client.dumps(result, methodresponse=True, allow_none=True).encode()


def apiWrapper(target: Callable[..., Any]) -> Callable[..., Marshallable]:
    """Return a function that answers with castSuccess of what the target returns, or castFailure of what it raises."""
    @functools.wraps(target)
    def outside(*args: Any, **kwargs: Any) -> Marshallable:
        try:
            return castSuccess(target(*args, **kwargs))
        except Exception as error:
            return castFailure(error)
    return outside


def castSuccess(res: Any) -> Marshallable:
    """Return a result as XML-RPC can carry it: dictionaries with text keys, text for what it has no type for."""
    if isinstance(res, Mapping):
        return {str(key): castSuccess(value) for key, value in res.items()}
    if isinstance(res, list | tuple):
        return [castSuccess(item) for item in res]
    return res if res is None or isinstance(res, bool | int | float | str | bytes) else str(res)


def castFailure(failure: Exception) -> xmlrpc.client.Fault:
    """Return the fault for an exception. An error meant for users keeps its text; a bug goes to the log."""
    if isinstance(failure, ParadropError):
        return xmlrpc.client.Fault(FAULT, failure.message)
    log.error("an internal call failed", exc_info=failure)
    return xmlrpc.client.Fault(FAULT, "an error in the router's software; see its log")


def api_provision(pdid: str, key: str, cert: str) -> str:
    """Provision this router with an id and a set of keys. Returns "Done!".

    Raises:
        ParadropError: it is provisioned already, or these are no texts or no id of a router.
    """
    if not all(isinstance(value, str) for value in (pdid, key, cert)):
        raise ParadropError("cannot provision: id, key and certificate must be texts")
    identity.provision(pdid, key, cert)
    log.info("this router is now %s", pdid)
    checkStartRiffle()
    return "Done!"


def checkStartRiffle() -> bool:
    """Look for the server, in a thread of its own, if this router has its keys and a server. Returns whether it has."""
    if identity.IdentityFile().identity is None or not settings.PDSERVER_URL:
        return False
    threading.Thread(target=pollServer, args=(settings.PDSERVER_URL,), daemon=True, name="server").start()
    return True


def pollServer(host: str, attempts: int | None = None) -> bool:
    """Poll the server for a connection, every three seconds, until one succeeds.

    Args:
        host: the server, as https://host[:port].
        attempts: how often to try; None is for ever.

    Returns:
        True after a connection, False after all attempts.
    """
    place = urlsplit(host)
    port = place.port or (443 if place.scheme == "https" else 80)
    number = 0
    while attempts is None or number < attempts:
        number += 1
        try:
            with socket.create_connection((place.hostname, port), timeout=RETRY_SECONDS):
                return True
        except OSError as error:
            log.debug("cannot reach the server %s: %s", host, error)
        if number != attempts:
            time.sleep(RETRY_SECONDS)
    return False


class ToolsPerspective:
    """What a tool that talks to this router is to it."""

    def __init__(self, name: str, realm: Any) -> None:
        self.name = name
        self.realm = realm


class ServerPerspective:
    """What the server is to this router: it may subscribe to the log. ``realm`` is the journal."""

    def __init__(self, name: str, realm: Journal) -> None:
        self.name = name
        self.realm = realm
        self._remote: Callable[[dict[str, Any]], None] | None = None

    def initialize(self) -> None:
        """The server has connected."""
        log.info("the server %s has connected", self.name)

    def destroy(self) -> None:
        """The server has gone: it gets nothing more."""
        self._unsubscribe()
        log.info("the server %s has gone", self.name)

    def perspective_subscribeLogs(self, target: float,
                                  newLogs: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Return all records since the target time (Unix seconds), and call ``newLogs`` with each that comes later."""
        self._unsubscribe()
        self._remote = newLogs
        self.realm.addSubscriber(newLogs)
        return self.realm.getLogsSince(target)

    def _unsubscribe(self) -> None:
        if self._remote is not None:
            self.realm.removeSubscriber(self._remote)
            self._remote = None
