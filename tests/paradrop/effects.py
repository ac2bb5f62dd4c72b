"""Everything that changes the router goes by a few doors of Python; something can be done at the n-th passage.

The doors: programs that are started, requests to the Docker engine that change something, and files that come, go or
get a name. CPython announces each of them to audit hooks before it happens.
"""

import contextlib
import http.client
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from paradrop.lib import settings

FILES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
PROGRAMS = 5
"""Of programs, every fifth counts: there are many in a row, and the tests of pdconfd look at each of its own."""


@dataclass
class Break:
    """What is done before the effect number ``at`` (from 1), or, with ``answer``, after that request was sent.

    Only requests count then. ``effect`` is what it was, "" as long as it was not come to.
    """

    what: Callable[[], None]
    at: int
    answer: bool = False
    effect: str = ""
    count: int = 0
    programs: int = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take what CPython announces."""
        effect = self._effect(event, arguments)
        self.count += bool(effect)
        if effect and self.count == self.at:
            self.effect = effect
            if not self.answer:
                self.what()

    def _effect(self, event: str, arguments: tuple[Any, ...]) -> str:
        """Return in words what is about to happen, "" for what does not count."""
        if event == "http.client.send":
            line = arguments[1].split(b" HTTP/")[0] if isinstance(arguments[1], bytes) else b""
            return line.decode() if line.startswith((b"POST ", b"DELETE ")) else ""
        if self.answer:
            return ""
        if event == "subprocess.Popen":
            self.programs += 1
            return " ".join(map(str, arguments[1])) if self.programs % PROGRAMS == 1 else ""
        path = str(arguments[0]) if event in FILES else ""
        return f"{event} {path}" if path and settings.UCI_BACKUP_DIR not in path else ""


@contextlib.contextmanager
def broken(what: Callable[[], None], at: int, answer: bool = False) -> Iterator[Break]:
    """Have WHAT happen at an effect of this process, which should end soon: audit hooks cannot be taken away."""
    here = Break(what, at, answer)
    original = http.client.HTTPConnection.getresponse

    def getresponse(connection: Any) -> Any:
        if answer and here.effect:
            what()
        return original(connection)

    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]
    sys.addaudithook(here.hook)
    try:
        yield here
    finally:
        http.client.HTTPConnection.getresponse = original  # type: ignore[method-assign]
