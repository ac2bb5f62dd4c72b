"""Runs the server: listens, serves with uvicorn, works if it is to work, and ends when it is told to.

With ``processes`` more than one, others serve the same socket; they end when this one does.
"""

import asyncio
import gc
import logging
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fussy import keys, parent
from fussy.errors import SystemSetup
from fussy.gpghome import stop_agent
from paradrop.backend.link.messages import MESSAGE_BYTES
from pdimage.server import artifacts, files, logs, metrics, sandbox, tables
from pdimage.server.app import make_app, make_desk
from pdimage.server.migrate import migrate
from pdimage.server.pages import routes
from pdimage.server.registry.desk import Registry, make_registry
from pdimage.server.registry.fleet.desk import make_fleet
from pdimage.server.registry.hub import Hub
from pdimage.server.registry.linkapi import early_refusal
from pdimage.server.registry.siblings import Inner
from pdimage.server.registry.websocket import Links
from pdimage.server.settings import Settings, address
from pdimage.server.worker import Worker

log = logging.getLogger(__name__)

# What a process has open besides links and connections: databases, files that it sends, its store.
_FILES = 200
# How long after the first process the others may take to end: clients have 10 seconds to take what they asked for.
END_SECONDS = 15.0
# How long a thread that reads the database waits for Python while the loop is busy, several times for each request;
# Python's own 5 ms make tens of milliseconds of that.
_SWITCH_SECONDS = 0.0005
# So many connections may wait to be taken; the kernel has a limit of its own, net.core.somaxconn.
_WAITING = 65535
OWN_KEY = "Build server <build-server@localhost.invalid>"


class InnerProtocol(HttpToolsProtocol):
    """HTTP/1.1; ASGI's scope has an extension ``connection``, whose ``has_gone`` tells whether the client has closed
    it, even while nothing is read from it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"connection": {"has_gone": self._has_gone}}

    def _has_gone(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
        return bool(poll.poll(0))


class Protocol(InnerProtocol):
    """HTTP/1.1, for clients that send the head of a request within ``head_seconds``, not byte by byte for ever.

    ``may_come`` is given the time and returns in how many seconds a WebSocket may come, 0: now.
    """

    head_seconds = 15.0
    may_come: Callable[[float], int] = staticmethod(lambda now: 0)
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_seconds, transport.close)

    def on_headers_complete(self) -> None:
        self._forget()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def handle_websocket_upgrade(self) -> None:
        if seconds := self.may_come(self.loop.time()):
            self.transport.write(early_refusal(seconds))
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None


def serve(settings: Settings, *, work: bool, ready: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; build as well if WORK. READY is told the address when it answers.

    :raises FussyError: a setting, the database, the catalogue, the store or the address can't be used
    """
    with ExitStack() as undo:
        _prepare(settings, work)
        _raise_limit(settings)
        metrics.prepare(settings)
        listener = undo.enter_context(listen(settings))
        stopping = undo.enter_context(_others(settings, listener))
        if work:
            worker = undo.enter_context(working(settings))
            log.info("%s builds as %s", settings.root, worker.name)
        host, port = listener.getsockname()[:2]
        scheme = "https" if settings.certificate else "http"
        _run(settings, listener, 0, lambda: ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"),
             stopping)


def work_only(settings: Settings, ready: Callable[[str], object]) -> None:
    """Build until SIGTERM or SIGINT.

    :raises FussyError: as :func:`serve`
    """
    _prepare(settings, True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with working(settings) as worker:
        ready(worker.name)
        stop.wait()


def _prepare(settings: Settings, work: bool) -> None:
    """Make the directory, the database and, if it is to sign and nobody named a key, a key of its own."""
    settings.root.mkdir(parents=True, exist_ok=True)
    _check_certificate(settings)
    engine = tables.connect(settings.database_url)
    try:
        migrate(engine)
    finally:
        engine.dispose()
    artifacts.connect(settings).check()
    if not work:
        return
    if not sandbox.is_used(settings):
        log.warning("builds are not shut off from the keys of this machine: install bubblewrap (see the setting "
                    "sandbox)")
    if not settings.gnupghome and not settings.keys.exists():
        made = keys.make_signing_key(settings.keys, OWN_KEY)
        log.warning("made a key that signs images, %s in %s", made.fingerprint, settings.keys)
    files.write_public_key(settings.root, settings.keys, settings.sign_with or _only_key(settings))


def _raise_limit(settings: Settings) -> None:
    """Let each process have as many files open as it may: a link, and a connection, is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < settings.links + settings.connections + _FILES:
        log.warning("this process may have %d files open, too few for %d links and %d connections: raise its limit "
                    "(LimitNOFILE=, ulimit -n) or lower the settings links and connections", most, settings.links,
                    settings.connections)


def _check_certificate(settings: Settings) -> None:
    if settings.certificate:
        certificate, key = settings.certificate
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise SystemSetup(f"cannot use the certificate {certificate} with the key {key}: "
                              f"{error.strerror or error}; see the settings tls_certificate and tls_key") from error


def _only_key(settings: Settings) -> str:
    from fussy.gpg import choose_signer

    return choose_signer(settings.keys, None).fingerprint


@contextmanager
def working(settings: Settings) -> Iterator[Worker]:
    """Have a worker as long as the block lasts."""
    engine = tables.connect(settings.database_url)
    worker = Worker(settings, engine, artifacts.connect(settings))
    worker.start()
    try:
        yield worker
    finally:
        worker.close()
        if not settings.gnupghome:  # the agent of keys that are ours alone
            stop_agent(settings.keys)
        engine.dispose()


@contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """Have the socket for where the settings say. It listens when a process serves it, not before: connections that
    nobody takes yet would be more than may wait when all routers come back at once, and clients whose connection was
    dropped try again only after seconds.

    :raises SystemSetup: it can't be had
    """
    host, port = address(settings.listen)
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            yield listener
    except OSError as error:
        raise SystemSetup(f"cannot listen on {settings.listen}: {error.strerror or error}; name another address with "
                          "--listen") from error


@contextmanager
def _others(settings: Settings, listener: socket.socket) -> Iterator[Callable[[], None]]:
    """Have more processes that serve the same socket; one that dies is started again. Yields what tells them to stop;
    those that have not END_SECONDS after the block are killed."""
    given = msgspec.json.encode(settings).decode()
    stop = threading.Event()

    def start(slot: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "pdimage.server.serving", given, str(listener.fileno()),
                                 str(os.getpid()), str(slot)],
                                pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)

    running = [start(slot) for slot in range(1, settings.processes)]
    told: set[subprocess.Popen[bytes]] = set()

    def end() -> None:
        stop.set()
        for process in set(running) - told:
            told.add(process)
            process.terminate()

    def watch() -> None:
        while not stop.wait(1):
            for number, process in enumerate(running):
                if process.poll() is not None:
                    log.warning("a serving process ended with %s and is started again", process.returncode)
                    running[number] = start(number + 1)

    watcher = threading.Thread(target=watch, name="watcher", daemon=True)
    watcher.start()
    try:
        yield end
    finally:
        stop.set()
        watcher.join()
        end()
        _wait(running, time.monotonic() + END_SECONDS)


def _wait(processes: list[subprocess.Popen[bytes]], until: float) -> None:
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("a serving process has not ended within %g seconds and is killed", END_SECONDS)
            process.kill()
            process.wait()


def configuration(settings: Settings, app: Any, links: Links, hub: Hub) -> uvicorn.Config:
    """Return how the application is served to everybody."""
    protocol = type("Protocol", (Protocol,), {"head_seconds": settings.body_seconds, "may_come": hub.may_come})
    certificate, key = settings.certificate or (None, None)
    return uvicorn.Config(
        app, http=protocol, loop="uvloop", ws=links.protocol, ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False, ws_ping_interval=None, lifespan="off", log_config=None, access_log=False,
        server_header=False, backlog=_WAITING, proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies), limit_concurrency=settings.connections,
        ssl_certfile=certificate, ssl_keyfile=key, timeout_keep_alive=15, timeout_graceful_shutdown=10)


class _Server(uvicorn.Server):
    """Attends to links as well, tells when it answers and when it begins to stop, and returns when it has."""

    def __init__(self, config: uvicorn.Config, registry: Registry, links: Links, ready: Callable[[], object],
                 stopping: Callable[[], object]) -> None:
        super().__init__(config)
        self._registry = registry
        self._links = links
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._registry.hub.start()
        await super().startup(sockets)
        await self._listen_to_siblings()
        self._ready()

    async def _listen_to_siblings(self) -> None:
        """Serve the other processes, on this one's own socket."""
        inner = uvicorn.Config(Inner(self._registry.hub, self.config.app), http=InnerProtocol,  # type: ignore[arg-type]
                               ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False)
        inner.load()

        def protocol() -> asyncio.Protocol:
            return InnerProtocol(inner, self.server_state, {})

        self.servers.append(await asyncio.get_running_loop().create_unix_server(
            protocol, sock=self._registry.siblings.listen()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        for server in self.servers:
            server.close()
        await self._registry.hub.close(self._registry.settings.link_rate)
        await self._links.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT. uvicorn's own would then end the process before anything is put in order."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _run(settings: Settings, listener: socket.socket, slot: int, ready: Callable[[], object] = lambda: None,
         stopping: Callable[[], object] = lambda: None) -> None:
    engine = tables.connect(settings.database_url)
    desk, registry, links = make_desk(settings, engine), make_registry(settings, engine, slot), Links()
    fleet = make_fleet(registry, desk.store, registry.hub.wake)
    app = make_app(desk, fleet, routes(desk, fleet))
    _collect_seldom()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with fleet.moving():
            _Server(configuration(settings, app, links, registry.hub), registry, links, ready, stopping).run(
                sockets=[listener])
    finally:
        registry.siblings.close()
        desk.count_hits()
        engine.dispose()


def _collect_seldom() -> None:
    """Look for garbage among all objects only after very many new ones. 10,000 links are half a million objects that
    live for long: as Python does it, it would look at all of them ten times while they come, for half a second each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 100)


def main() -> None:
    """Serve a socket that was inherited: what ``processes`` starts."""
    if not parent.end_with(int(sys.argv[3]), signal.SIGTERM):
        return
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    logs.start(settings, verbose=False)
    with socket.socket(fileno=os.dup(int(sys.argv[2]))) as listener:
        _run(settings, listener, int(sys.argv[4]))


if __name__ == "__main__":
    main()
