"""The log of a chute's containers, as a stream that ends when its reader goes.

The engine keeps the log, so for a slow reader it is read as slowly, and nothing of it is dropped.
"""

import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

from paradrop.lib.api.pipe import Pipe
from paradrop.lib.utils import dockerclient


def container_log(chute: str, tail: int, follow: bool) -> AsyncIterator[str]:
    """Return the last lines of a chute's containers, each behind its service's name if there are several.

    Args:
        tail: how many lines of each container to begin with.
        follow: go on with new lines until the containers end or the reader goes.

    Raises:
        DockerError: the engine does not answer.
    """
    containers = _containers(chute)
    opened = [(f"{service}: " if len(containers) > 1 else "", _open(number, tail, follow))
              for service, number in containers]
    return _stream(opened)


async def _stream(opened: list[tuple[str, Any]]) -> AsyncIterator[str]:
    pipe = Pipe()
    pumps = [threading.Thread(target=_pump, args=(log, prefix, pipe), daemon=True) for prefix, log in opened]
    for thread in pumps:
        thread.start()
    threading.Thread(target=_close_after, args=(pumps, pipe), daemon=True).start()
    try:
        async for text in pipe.read():
            yield text
    finally:
        pipe.close()
        for _, log in opened:
            with contextlib.suppress(Exception):
                log.close()  # wakes the thread that reads it


def _containers(chute: str) -> list[tuple[str, str]]:
    """Return (service, container id) of a chute's containers, whether they run or not."""
    client = dockerclient.connect()
    with dockerclient.translated(f"cannot read the log of {chute}"):
        found = client.containers(all=True, filters={"label": f"{dockerclient.LABEL}={chute}"})
    return sorted((item["Labels"].get(dockerclient.SERVICE_LABEL, "main"), item["Id"]) for item in found)


def _open(number: str, tail: int, follow: bool) -> Any:
    client = dockerclient.connect()
    with dockerclient.translated("cannot read the log"):
        return client.logs(number, stdout=True, stderr=True, stream=True, follow=follow, tail=tail)


def _pump(log: Any, prefix: str, pipe: Pipe) -> None:
    """Move lines from a container's log to the pipe until either ends or is closed."""
    with contextlib.suppress(Exception):  # whatever a socket says that was closed under its reader
        for piece in log:
            text = piece.decode(errors="replace")
            if not pipe.write("".join(prefix + line for line in text.splitlines(keepends=True)) if prefix else text):
                return


def _close_after(threads: list[threading.Thread], pipe: Pipe) -> None:
    for thread in threads:
        thread.join()
    pipe.close()
