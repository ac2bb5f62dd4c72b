"""The API server: what answers ``/v1``, and the set-up of everything that the two APIs stand on."""

import logging
import math
import shutil
import threading
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Any, Protocol

from paradrop.backend.link.service import Link
from paradrop.backend.pdfcd import access, identity
from paradrop.backend.pdfcd.access import Access, Failures
from paradrop.backend.pdfcd.accounts import Accounts
from paradrop.backend.pdfcd.apichute import ChuteAPI
from paradrop.backend.pdfcd.changes import Change, Changes
from paradrop.backend.pdfcd.journal import Journal
from paradrop.lib import settings
from paradrop.lib.api import pdapi
from paradrop.lib.api.pdrest import GET, APIDecorator, APIPackage, APIResource, Request
from paradrop.lib.api.wire import json2str
from paradrop.lib.chute import Chute
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

_STOPPED = "The router stops before this is done; see what has become of it when it is back."


class Queue(Protocol):
    """What the server needs of PDConfigurer."""

    def updateList(self, **updateObj: Any) -> None:
        """Queue an update; its ``func`` is called with the update object when it is done."""


class Store(Protocol):
    """What the server needs of ChuteStorage."""

    def getChute(self, name: str | None) -> Chute | None: ...
    def getChuteList(self) -> list[Chute]: ...


class ParadropAPIServer(APIResource):
    """The documented API server: every call of ``/v1``, and what ``/api/v1`` shares with it."""

    def __init__(self, configurer: Queue, storage: Store, journal: Journal | None = None) -> None:
        self.rest = self
        self.configurer = configurer
        self.storage = storage
        self.journal = journal or Journal()
        self.changes = Changes()
        self.accounts = Accounts()
        self.access = Access(self.accounts)
        self.failureDict = Failures()
        self.link = Link(storage)
        self.started = time.time()
        super().__init__()
        self.chutes = ChuteAPI(self)

    @GET("^/v1/test$")
    @APIDecorator()
    def GET_test(self, request: APIPackage) -> None:
        """Answer, to show that the server works."""
        request.setSuccess("SUCCESS\n")

    def default(self, request: Request) -> object:
        """Answer what no other call answers: 405 if another method would do, else 404."""
        methods = sorted(self.methods(request.path))
        if not methods:
            return self.failprocess(request.getClientIP(), request, None, "Not Found\n", None, 404)
        request.setHeader("Allow", ", ".join(methods))
        return self.failprocess(request.getClientIP(), request, None, "Method Not Allowed\n", None,
                                pdapi.ERR_BADMETHOD)

    def complete(self, update: Any) -> None:
        """End the change that an update was made for. The queue calls this, in its own thread."""
        change: Change = update.pkg
        if update.workdir:
            shutil.rmtree(update.workdir, ignore_errors=True)
        change.finish(update.result)

    async def streamed(self, change: Change) -> AsyncIterator[str]:
        """Yield the answer of a ``/v1`` chute call: progress as it comes, then the result as a line of JSON."""
        async for text in change.feed.follow():
            yield text
        yield json2str(change.result) + "\n"

    def preprocess(self, request: Request, checkThresh: tuple[str, str | None, str | None, Failures] | None,
                   tictoc: float | None) -> str | None:
        """Refuse a caller who has failed too often: return the text for him. None if he may go on.

        Args:
            checkThresh: (address, session token, user name, the failures so far), or None not to check.
            tictoc: when the call began, by time.monotonic(), or None not to note its duration.
        """
        if checkThresh is None or not checkThresh[3].locked_out(checkThresh[0]):
            return None
        request.setResponseCode(*pdapi.getResponse(pdapi.ERR_THRESHOLD))
        return "Too many failed attempts\n"

    def postprocess(self, request: Request, key: str, failureDict: Failures | None,
                    logUsage: tuple[float, str | None] | None) -> None:
        """After a success: forget the caller's failures, set the code, note the usage."""
        if failureDict is not None:
            failureDict.reset(key)
        request.setResponseCode(*pdapi.getResponse(pdapi.OK))
        self._note_usage(request, logUsage)

    def failprocess(self, ip: str, request: Request, logFailure: tuple[str, Failures] | None, errorStmt: str,
                    logUsage: tuple[float, str | None] | None, errType: int) -> str:
        """After a failure: count it against the caller, set the code, note the usage; return the text for him.

        Args:
            ip: his address.
            logFailure: (key, the failures so far), or None not to count it.
            errorStmt: what to tell him.
            logUsage: (when the call began, who made it), or None.
            errType: the code, one of pdapi's.
        """
        if logFailure is not None:
            key, failures = logFailure
            failures.count(key)
        request.setResponseCode(errType, errorStmt)
        self._note_usage(request, logUsage)
        return errorStmt

    def _note_usage(self, request: Request, usage: tuple[float, str | None] | None) -> None:
        if usage is not None:
            began, who = usage
            log.debug("%s %s by %s of %s: %.1f ms", request.method, request.path, who, request.getClientIP(),
                      (time.monotonic() - began) * 1000)


def initializeSystem() -> None:
    """Write the configuration that must be there before the first update: Docker's start options.

    Where they cannot be written, containers may start before their networks at the next boot; the log says so.
    """
    from paradrop.lib.utils import dockerapi

    try:
        dockerapi.writeDockerConfig()
    except OSError as error:
        log.warning("cannot write Docker's start options to %s: %s", settings.DOCKER_CONFIG_FILE, error)


def begin_link(link: Link) -> None:
    """Finish a provisioning that was interrupted, and begin to keep the link to the server, if there is one."""
    try:
        if identity.given_file().exists():
            from paradrop.backend.link import provisioning  # not needed by most starts

            provisioning.finish()
        link.start()
    except (ParadropError, OSError) as error:
        log.error("no link to the server: %s", error)


def setup(args: Namespace | None = None, journal: Journal | None = None) -> None:
    """Make the queue and the server, and serve until the process is told to stop.

    Args:
        args: the daemon's arguments: ``development`` adds 10000 to the port and ``unittest`` 20000, ``mode``
            production writes Docker's start options.
        journal: where ``/api/v1/logs`` reads; None is a new one that hears nothing yet.

    Raises:
        ParadropError: the port is taken, or a setting is wrong.
    """
    from paradrop.backend.fc.chutestorage import ChuteStorage
    from paradrop.backend.fc.configurer import PDConfigurer
    from paradrop.backend.pdfcd import serve, upload
    from paradrop.backend.pdfcd.app import make_app

    args = args or Namespace()
    access.check_settings()
    offset = 10000 * bool(getattr(args, "development", False)) + 20000 * bool(getattr(args, "unittest", False))
    sockets = serve.listen(str(settings.PDFCD_ADDRESS).split(), int(settings.PDFCD_PORT) + offset)
    if getattr(args, "mode", "production") == "production":
        initializeSystem()
    storage = ChuteStorage()
    configurer = PDConfigurer(storage, None)
    rest = ParadropAPIServer(configurer, storage, journal)
    rest.accounts.write_local_token()
    upload.clear()
    worker = threading.Thread(target=configurer.performUpdates, name="updates", daemon=True)
    worker.start()

    end = math.inf

    def stopping() -> None:
        nonlocal end
        end = time.monotonic() + serve.GRACE_SECONDS
        configurer.stop()
        rest.link.stop()
        rest.journal.feed.close()
        last_word = threading.Timer(serve.GRACE_SECONDS - 2, rest.changes.finish_all, (_STOPPED,))
        last_word.daemon = True
        last_word.start()

    app = rest.link.app = make_app(rest)
    begin_link(rest.link)
    serve.run(app, sockets, worker.is_alive, stopping)
    worker.join(max(0.0, end - time.monotonic()))
    if worker.is_alive():
        log.warning("an update is not over: its chute is put in order when the daemon starts again")
