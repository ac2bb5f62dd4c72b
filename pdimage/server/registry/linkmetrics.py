"""What is counted of links, for ``/metrics``, by every serving process in the files that :mod:`pdimage.server.metrics`
has."""


class LinkMetrics:
    """The counters. How many routers are awake comes from the database."""

    def __init__(self) -> None:
        from prometheus_client import Counter

        self._came = Counter("pdimage_links_made", "Links that routers made.", registry=None)
        self._lost = Counter("pdimage_links_silent", "Links that were cut because nothing came any more.",
                             registry=None)
        self._refused = Counter("pdimage_links_refused", "Links that were refused, by reason.", ["reason"],
                                registry=None)
        self._asked = Counter("pdimage_tunnel_requests", "Requests for routers, by how they ended.", ["end"],
                              registry=None)
        self._bytes = Counter("pdimage_tunnel_bytes", "Bytes of bodies through links, to and from routers.",
                              ["direction"], registry=None)

    def came(self) -> None:
        """Count a link."""
        self._came.inc()

    def lost(self) -> None:
        """Count a link that was silent for too long."""
        self._lost.inc()

    def refused(self, reason: str) -> None:
        """Count a router that may not come in, or not yet."""
        self._refused.labels(reason).inc()

    def asked(self, end: str) -> None:
        """Count a request for a router."""
        self._asked.labels(end).inc()

    def carried(self, direction: str, size: int) -> None:
        """Count bytes of a body."""
        self._bytes.labels(direction).inc(size)
