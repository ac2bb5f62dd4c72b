"""Runs the HTTP application until the process is told to stop."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from paradrop.lib.errors import ParadropError
from paradrop.notify import notify, watchdog_seconds

log = logging.getLogger(__name__)

GRACE_SECONDS = 10
"""How long connections, and the update that runs, may take to end after the daemon was told to stop."""
HEAD_SECONDS = 15.0
CONNECTIONS = 200


class Protocol(H11Protocol):
    """HTTP/1.1, for clients that send the head of a request within HEAD_SECONDS, not byte by byte for ever."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Run the timer while a head is on its way, from its first byte or the connection's beginning on."""
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        elif not waiting and self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """A server that leaves signals to us, and tells the service manager when it is ready."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        notify("READY=1")


def listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Return a socket that listens on the port at each address.

    Raises:
        ParadropError: one of them cannot be had; none is left open.
    """
    with contextlib.ExitStack() as undo:
        sockets = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = undo.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind((address, port))
                server.listen(128)
            except (OSError, OverflowError) as error:
                raise ParadropError(f"cannot listen on {address} port {port}: {error}; "
                                    "see the settings PDFCD_ADDRESS and PDFCD_PORT") from error
            sockets.append(server)
        undo.pop_all()
    return sockets


def run(app: ASGIApp, sockets: list[socket.socket], alive: Callable[[], bool], stopping: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        alive: whether the rest of the daemon is well; the service manager hears nothing while it is not.
        stopping: called once, when the signal has come.
    """
    asyncio.run(_serve(Server(configuration(app)), sockets, alive, stopping))


def configuration(app: ASGIApp) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        app, http=Protocol, loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_SECONDS)


async def _serve(server: Server, sockets: list[socket.socket], alive: Callable[[], bool],
                 stopping: Callable[[], None]) -> None:
    def stop() -> None:
        if not server.should_exit:
            notify("STOPPING=1")
            log.info("told to stop")
            server.should_exit = True
            stopping()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with _watched(alive):
        await server.serve(sockets)


@contextlib.asynccontextmanager
async def _watched(alive: Callable[[], bool]) -> AsyncIterator[None]:
    """Tell the service manager's watchdog, if it has one, that this loop and the rest are alive."""
    every = watchdog_seconds()

    async def tell() -> None:
        assert every is not None
        while True:
            await asyncio.sleep(every / 2)
            if alive():
                notify("WATCHDOG=1")

    task = asyncio.create_task(tell()) if every else None
    try:
        yield
    finally:
        if task:
            task.cancel()
