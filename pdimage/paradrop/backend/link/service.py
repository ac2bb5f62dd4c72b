"""The link as a part of the daemon: a thread that is there as long as the router belongs to a server.

What the link needs is imported in that thread, so a router without a server does not carry it in its memory.
"""

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from paradrop.backend.link import linkstate
from paradrop.backend.pdfcd.identity import Identity, IdentityFile
from paradrop.lib import firmware
from paradrop.lib.errors import ParadropError

if TYPE_CHECKING:
    from paradrop.backend.pdfcd.server import Store

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class Link:
    """The link of this router, whether there is one now or not. Thread-safe."""

    def __init__(self, store: "Store") -> None:
        self.app: ASGIApp | None = None
        """What answers the server's requests."""
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep the link, if this router belongs to a server; one that is there ends first."""
        self.stop()
        identity = IdentityFile().identity
        if identity is None or not identity.server:
            linkstate.write("off", "", "This router belongs to no server.")
            return
        linkstate.write("connecting", identity.server, f"Looking for the server {identity.server}.")
        with self._lock:
            self._loop = asyncio.new_event_loop()
            self._task = self._loop.create_task(self._keep(identity))
            self._thread = threading.Thread(target=self._run, args=(self._loop, self._task), daemon=True, name="link")
            self._thread.start()

    def stop(self) -> None:
        """End the link, if there is one."""
        with self._lock:
            thread, loop, task = self._thread, self._loop, self._task
            self._thread = self._loop = self._task = None
        if thread is not None and loop is not None and task is not None and thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
            thread.join(_STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("the link has ended")
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _keep(self, identity: Identity) -> None:
        from paradrop.backend.link.agent import Agent, World
        from paradrop.backend.link.facts import facts
        from paradrop.backend.link.messages import Facts
        from paradrop.backend.link.outcomes import Outcomes

        assert self.app is not None
        outcomes = Outcomes()

        def look_around() -> Facts:
            if target := firmware.target():
                outcomes.look(target)
            return facts(self._store.getChuteList())

        def show(word: linkstate.Word, line: str) -> None:
            linkstate.write(word, identity.server, line)

        await Agent(identity, World(self.app, look_around, outcomes, look, show)).run()


def look() -> None:
    """Have the updater look for an update now, as cron would."""
    try:
        firmware.start(firmware.update_command())
    except (ParadropError, OSError) as error:
        log.info("the server asks to look for an update: %s", error)
