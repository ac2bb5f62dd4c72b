"""The one connection to the Docker engine, its time limits, and what its errors mean to the user.

The docker SDK is imported when the engine is first needed: it takes a third of an idle daemon's memory.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError

LABEL = "io.paradrop.chute"
"""Label of every container, image and network of ours; its value is the chute's name. Nothing without it is touched."""
SERVICE_LABEL = "io.paradrop.service"
SPEC_LABEL = "io.paradrop.spec"


class DockerError(ParadropError):
    """The Docker engine is absent, did not answer in time, or refused."""


class NotFound(DockerError):
    """The engine does not have what was asked for."""


_clients: dict[tuple[str, float], Any] = {}


def connect(timeout: float | None = None) -> Any:
    """Return a client of the engine at the setting DOCKER_HOST; each of its calls takes so many seconds at most.

    Args:
        timeout: the seconds; None stands for the setting DOCKER_TIMEOUT.

    Raises:
        DockerError: there is no engine, or it does not answer.
    """
    key = (str(settings.DOCKER_HOST), float(timeout or settings.DOCKER_TIMEOUT))
    if key not in _clients:
        with translated("cannot reach the Docker engine"):
            import docker

            _clients[key] = docker.APIClient(base_url=key[0], version="auto", timeout=key[1])
    return _clients[key]


def checkEngine(update: object = None) -> None:
    """Raise a DockerError, within DOCKER_TIMEOUT, if the engine is absent or hung. Fit to be a plan."""
    client = connect()
    with translated("cannot reach the Docker engine"):
        client.ping()


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn errors of the docker SDK into a DockerError that begins with ``what`` ("cannot …")."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.NotFound as error:
        raise NotFound(f"{what}: {error.explanation or error}") from error
    except docker.errors.APIError as error:
        raise DockerError(f"{what}: {error.explanation or error}") from error
    except requests.exceptions.Timeout as error:
        raise DockerError(f"{what}: the Docker engine at {settings.DOCKER_HOST} gave no answer within "
                          f"{settings.DOCKER_TIMEOUT} seconds; see whether it hangs") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        if "timed out" in str(error).lower():
            raise DockerError(f"{what}: the Docker engine at {settings.DOCKER_HOST} gave no answer in time; "
                              "see whether it hangs") from error
        raise DockerError(f"{what}: no Docker engine answers at {settings.DOCKER_HOST}; see whether it runs "
                          f"({_first_line(error)})") from error


class Deadline:
    """A time by which something must be over."""

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.what = what
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise a DockerError if the time has passed."""
        if time.monotonic() > self._end:
            raise DockerError(f"{self.what}: not done within {self.seconds:g} seconds")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
