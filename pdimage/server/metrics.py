"""What is measured, for Prometheus, at ``/metrics``; and whether the server is well, at ``/health/...``.

Requests are counted by every serving process in files of one directory, so that a scrape tells of all of them. What
the queue and the store hold comes from the database, and is the same whichever process is asked.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fussy.errors import FussyError
from pdimage.server import tables
from pdimage.server.desk import Desk
from pdimage.server.http import answer, answering, in_thread
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)

# prometheus_client decides by this variable, when it is loaded, that several processes count together.
_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STATES = ("queued", "building", "done", "failed")


def prepare(settings: Settings) -> None:
    """Make the directory in which the processes of a server count; what an earlier server counted is gone."""
    place = settings.root / "metrics"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ[_TOGETHER] = str(place)


class Measured:
    """Counts and times the requests to an application, by the path of the route and the status."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], *, log_access: bool) -> None:
        from prometheus_client import Counter, Histogram

        self._app = app
        self._paths: Mapping[object, str] = {
            route.endpoint: route.path for route in routes if isinstance(route, Route)}
        self._log_access = log_access
        self._requests = Counter("pdimage_http_requests", "Requests that were answered.", ["method", "path", "status"],
                                 registry=None)
        self._seconds = Histogram("pdimage_http_seconds", "Seconds until a request was answered.", ["path"],
                                  buckets=_SECONDS, registry=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - started
            # an address that no route has is anybody's, and must not become a label of its own
            path = self._paths.get(scope.get("endpoint", self), "other")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._requests.labels(method, path, str(status)).inc()
            self._seconds.labels(path).observe(seconds)
            if self._log_access:
                client = scope["client"][0] if scope.get("client") else ""
                log.info("%s %s %d in %.1f ms for %s", scope["method"], scope["path"], status, seconds * 1000, client,
                         extra={"method": scope["method"], "path": scope["path"], "status": status,
                                "milliseconds": round(seconds * 1000, 1), "client": client})


class Health:
    """The handlers for those who watch the server."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def routes(self) -> list[BaseRoute]:
        """Return their routes."""
        return [Route("/metrics", answering(self.metrics)), Route("/health/live", answering(self.live)),
                Route("/health/ready", answering(self.ready))]

    async def live(self, request: Request) -> Response:
        """Answer: the process is not stuck."""
        return answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Tell whether requests can be taken and images be given out; 503 with reasons if not."""
        wrong = await in_thread(self._wrong)
        return answer({"status": "ok"} if not wrong else {"status": "not ready", "reasons": wrong},
                      503 if wrong else 200)

    def _wrong(self) -> Mapping[str, str]:
        found = {}
        try:
            self.desk.requests.waiting()
        except sa.exc.SQLAlchemyError as error:
            found["database"] = str(error.__cause__ or error).partition("\n")[0]
        try:
            self.desk.store.check()
        except FussyError as error:
            found["store"] = str(error)
        return found

    async def metrics(self, request: Request) -> Response:
        """Give the numbers in Prometheus' text format."""
        text = await in_thread(self._text)
        return Response(text, media_type="text/plain; version=0.0.4")

    def _text(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(_Stored(self.desk))
        return generate_latest(registry)


class _Stored:
    """What the database knows, as metrics."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Any]:
        """Yield the metrics (the interface of prometheus_client's collectors)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        totals = self._desk.images.totals()
        requests = GaugeMetricFamily("pdimage_requests", "Requests for images, by state.", labels=["state"])
        for state in _STATES:
            requests.add_metric([state], totals.get(state, 0))
        yield requests
        yield GaugeMetricFamily("pdimage_queue_oldest_seconds", "How long the oldest request has waited.",
                                self._desk.requests.oldest_wait())
        yield GaugeMetricFamily("pdimage_images_stored", "Images that can be downloaded.", totals["stored"])
        counted = {name: (number, seconds) for name, number, seconds in self._desk.images.counted("total")}
        built, seconds = counted.get("images", (0, 0.0))
        yield CounterMetricFamily("pdimage_images_built", "Images that were built.", built)
        with tables.reading(self._desk.engine) as connection:
            awake = connection.scalar(sa.text("SELECT count(*) FROM routers WHERE connected = 1"))
        yield GaugeMetricFamily("pdimage_links", "Routers that are awake: they have a link to a server.", awake)
        yield CounterMetricFamily("pdimage_build_seconds", "Seconds that building them took.", seconds)
