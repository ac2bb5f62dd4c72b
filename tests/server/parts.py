"""The parts of a build server of more than one machine, as real processes: PostgreSQL, Redis, an S3 server (moto).

They listen on loopback alone, keep their data in directories of their own, and can be killed and started again. None
outlives the process that started it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from tests.server.serverprocess import wait_until

MORTAL = ["setpriv", "--pdeathsig", "KILL", "--"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Part:
    """A process that answers on PORT."""

    def __init__(self, argv: list[str], port: int, log: Path) -> None:
        self.port = port
        self._argv = argv
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if it can't take up what is left of the last one yet; wait until it answers."""
        def there() -> bool:
            if self._process is None or self._process.poll() is not None:
                with self._log.open("ab") as log:
                    self._process = subprocess.Popen([*MORTAL, *self._argv], stdin=subprocess.DEVNULL, stdout=log,
                                                     stderr=log, start_new_session=True)
                time.sleep(0.2)
            with socket.socket() as probe:
                return self._process.poll() is None and probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(there)

    def kill(self) -> None:
        """End it as a power cut would, with all processes of its own."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)


class Postgres(Part):
    """A database cluster in PLACE, which it gets from initdb. Only the user postgres may run it."""

    def __init__(self, place: Path) -> None:
        self.programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.data = place / "data"
        port = free_port()
        shutil.chown(place, "postgres")
        self.run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
        argv = [*self._as_postgres("postgres"), "-D", str(self.data), "-p", str(port), "-c", "fsync=off",
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        super().__init__(argv, port, place / "log")

    def _as_postgres(self, program: str) -> list[str]:
        # a change of the user takes the signal back that would come when this process dies
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig", "KILL",
                str(self.programs / program)]

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run([*self._as_postgres(program), *arguments], check=True, timeout=120, stdout=subprocess.DEVNULL,
                       cwd="/")

    def start(self) -> None:
        super().start()

        def answers() -> bool:
            return subprocess.run([self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                                  timeout=30, check=False).returncode == 0

        wait_until(answers)

    def database(self, name: str) -> str:
        """Make a database, and return its address."""
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"


class Redis(Part):
    """A Redis that keeps nothing: what it has is lost when it ends."""

    def __init__(self, place: Path) -> None:
        port = free_port()
        argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(place)]
        super().__init__(argv, port, place / "log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class Store(Part):
    """An S3 server with a bucket ``images``."""

    def __init__(self, place: Path) -> None:
        port = free_port()
        super().__init__([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, place / "log")

    def start(self) -> None:
        super().start()
        made = urllib3.request("PUT", f"http://127.0.0.1:{self.port}/images", timeout=90)
        assert made.status == 200

    def settings(self, prefix: str) -> dict[str, object]:
        return {"store": f"s3://images/{prefix}", "store_options": {
            "endpoint": f"http://127.0.0.1:{self.port}", "access_key_id": "a", "secret_access_key": "b",
            "region": "us-east-1"}}


@contextmanager
def running(kind: Callable[[Path], Part]) -> Iterator[Part]:
    """Have a part as long as the block lasts."""
    place = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-", dir="/tmp"))
    part = kind(place)
    try:
        part.start()
        yield part
    finally:
        part.kill()
        shutil.rmtree(place, ignore_errors=True)
