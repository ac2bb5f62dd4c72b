"""``pdimage serve``, started again whenever it is killed, and killed in the middle of a provisioning by itself.

``python -m tests.registry.killing serve -v -c FILE``. Beside FILE, the file ``kill-at`` has the number of the moment at
which the next provisioning ends in SIGKILL: before each statement of its transaction, before its commit, and after it.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fussy import parent
from pdimage.server.serving import serve
from pdimage.server.settings import load

_BEGIN = "routers.secret ="


class Moments:
    """Counts the moments of a provisioning."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._left = 0

    def statement(self, _: sa.Connection, __: object, text: str, *more: Any) -> None:
        if _BEGIN in text and text.startswith("SELECT") and self._file.exists():
            self._left = int(self._file.read_text())
            self._file.unlink()
        self.moment()

    def moment(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def serve_once(config: Path) -> int:
    """Serve as another process, which is told to end when this one is; return how it ended."""
    own = os.getpid()
    child = os.fork()
    if child == 0:
        if not parent.end_with(own, signal.SIGKILL):
            os._exit(1)
        moments = Moments(config.parent / "kill-at")
        sa.event.listen(sa.Engine, "before_cursor_execute", moments.statement)
        sa.event.listen(sa.Engine, "commit", moments.moment)
        sa.event.listen(sa.Pool, "checkin", moments.moment)
        serve(load(config, {}), work=False, ready=lambda url: print(f"answers on {url}", flush=True))
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    config = Path(sys.argv[sys.argv.index("-c") + 1])
    while serve_once(config) == -signal.SIGKILL:
        pass


if __name__ == "__main__":
    main()
