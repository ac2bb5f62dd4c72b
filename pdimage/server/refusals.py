"""What the API refuses, and how it says so: a status, a sentence, and headers that old clients look at."""

from collections.abc import Iterable, Mapping


class Refused(Exception):
    """A request that is answered with an error. ``status`` is that of HTTP, ``error`` the sentence for people."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None, **more: object) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = dict(headers or {})
        self.more = more


def bad(error: str) -> Refused:
    """Return the refusal of a request that makes no sense (400)."""
    return Refused(400, error)


def unknown_packages(names: Iterable[str]) -> Refused:
    """Return the refusal for packages that a version does not have (422), with the header that auc prints."""
    listed = ", ".join(names)
    return Refused(422, f"could not find packages: {listed}", {"X-Unknown-Package": listed})


def overloaded(seconds: int) -> Refused:
    """Return what is said while the queue is full (503)."""
    return Refused(503, f"the server has too much to build; try again in {seconds} seconds",
                   {"Retry-After": str(seconds)})


def too_many(error: str, seconds: int) -> Refused:
    """Return what one client is told that asks for more than its share (429)."""
    return Refused(429, error, {"Retry-After": str(seconds)})


def unavailable(seconds: int = 10) -> Refused:
    """Return what is said while the database or the store does not answer (503)."""
    return Refused(503, f"the server can't reach its database; try again in {seconds} seconds",
                   {"Retry-After": str(seconds)})
