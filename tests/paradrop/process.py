"""The daemon as a process of its own, beside a Docker engine of the tests, and the command that talks to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from tests.paradrop.engine import Engine

PORT = 9999


@dataclass
class Daemon:
    """A router's daemon. ``home`` holds all of its files; ``engine`` is the Docker engine it uses, if any."""

    home: Path
    engine: Engine | None = None
    arguments: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    told: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        engine = self.engine.url if self.engine else f"unix://{self.home}/no-engine.sock"
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONUNBUFFERED": "1",
            "CONFIG_HOME_DIR": f"{self.home}/lib", "RUNTIME_HOME_DIR": f"{self.home}/run",
            "UCI_CONFIG_DIR": f"{self.home}/config", "DOCKER_CONFIG_FILE": f"{self.home}/docker.default",
            "DOCKER_HOST": engine, "DOCKER_STOP_TIMEOUT": "0", "CHUTE_SETTLE_TIME": "0.3", "PDFCD_PORT": str(PORT),
            "DOCKER_START_TIMEOUT": "20", **self.settings}

    def prefix(self) -> list[str]:
        """What runs a command where the daemon is."""
        return ["nsenter", f"--net=/run/netns/{self.engine.netns}"] if self.engine else []

    def start(self) -> None:
        """Start the daemon and wait until it says that it is ready."""
        place = self.home / "notify"
        place.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, (self.home / "daemon.log").open("ab") as log:
            channel.bind(str(place))
            channel.settimeout(60)
            self.process = subprocess.Popen(
                [*self.prefix(), sys.executable, "-m", "paradrop.main", *self.arguments], cwd=self.home, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, env={**self.environment, "NOTIFY_SOCKET": str(place)})
            self.told = [channel.recv(100).decode()]
        assert self.told == ["READY=1"]

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the daemon a signal, and return how it ended."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def log(self) -> str:
        """What the daemon has said."""
        return (self.home / "daemon.log").read_text()

    def memory(self) -> float:
        """The resident memory of the daemon, in MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def paradrop(self, *arguments: str, cwd: Path | None = None, code: int | None = 0) -> str:
        """Run the paradrop command where the daemon is; return all that it wrote."""
        done = subprocess.run([*self.prefix(), sys.executable, "-m", "paradrop.tools", *arguments],
                              cwd=cwd or self.home, env=self.environment, capture_output=True, text=True, timeout=120)
        assert code is None or done.returncode == code, done.stdout + done.stderr + self.log()
        return done.stdout + done.stderr

    def page(self, url: str) -> str | None:
        """Return a page as a computer beside the daemon sees it, None if nothing answers."""
        with self.engine.inside() if self.engine else contextlib.nullcontext():
            try:
                answer = urllib3.request("GET", url, timeout=3, retries=False)
            except (urllib3.exceptions.HTTPError, OSError):
                return None
        return answer.data.decode() if answer.status == 200 else None

    def await_page(self, url: str, present: bool = True) -> str | None:
        """Wait up to twenty seconds for a page to be there, or gone."""
        for _ in range(100):
            page = self.page(url)
            if (page is not None) == present:
                return page
            time.sleep(0.2)
        raise AssertionError(f"{url}: still {page!r}\n{self.log()}")


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """Start a daemon, and end it afterwards."""
    try:
        daemon.start()
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.terminate()
            try:
                daemon.process.wait(40)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait(10)
