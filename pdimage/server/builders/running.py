"""Runs an ImageBuilder's ``make``: in a container without privileges where there is a Docker engine, otherwise here.

Here means inside the build's own process, which is shut off already (:mod:`pdimage.server.sandbox`).
"""

import logging
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fussy.errors import SystemSetup
from pdimage import tools
from pdimage.errors import PartFailed
from pdimage.server.builders import Tell

log = logging.getLogger(__name__)

SECONDS = 1500
_INSIDE, _WORK = Path("/builder"), Path("/work")


class Make(Protocol):
    """``make`` in the directory of an ImageBuilder."""

    def __call__(self, arguments: Sequence[str], what: str) -> str:
        """Return what it printed.

        :raises PartFailed: it failed
        """

    def attempt(self, arguments: Sequence[str], tell: Tell) -> tuple[int, str]:
        """Return its exit code and what it printed; TELL is told each line at once."""

    def name(self, path: Path) -> str:
        """Return how a path of the build's place is called where it runs."""


LABEL = "pdimage.build"


def end_container(place: Path, engine: str) -> None:
    """Remove what runs for the build in PLACE, whose process was killed, from the Docker engine at ENGINE."""
    import docker

    try:
        for left in docker.DockerClient(base_url=engine, timeout=60).containers.list(
                all=True, filters={"label": f"{LABEL}={place.name}"}):
            left.remove(force=True)
    except (docker.errors.DockerException, OSError) as error:
        log.warning("cannot remove the container of the build in %s: %s", place, error)


def make_in(directory: Path, place: Path, engine: str, container: str) -> Make:
    """Return ``make`` in DIRECTORY for a build in PLACE, in the image CONTAINER if there is an ENGINE and an image."""
    return _InContainer(directory, place, engine, container) if engine and container else _Here(directory)


@dataclass(frozen=True)
class _Here:
    directory: Path

    def __call__(self, arguments: Sequence[str], what: str) -> str:
        return _good(self.attempt(arguments, lambda line: None), what)

    def attempt(self, arguments: Sequence[str], tell: Tell) -> tuple[int, str]:
        try:
            process = subprocess.Popen(
                ["make", "--no-print-directory", "-C", str(self.directory), *arguments], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"})
        except FileNotFoundError as error:
            raise SystemSetup("cannot run the ImageBuilder: make is missing; install it") from error
        with process:
            assert process.stdout
            output = _passed_on(process.stdout, tell)
        return process.returncode, output

    def name(self, path: Path) -> str:
        return str(path)


@dataclass(frozen=True)
class _InContainer:
    """No network, no capabilities, a read-only root; the ImageBuilder and the build's place are all it can write."""

    directory: Path
    place: Path
    engine: str
    image: str

    def __call__(self, arguments: Sequence[str], what: str) -> str:
        return _good(self.attempt(arguments, lambda line: None), what)

    def attempt(self, arguments: Sequence[str], tell: Tell) -> tuple[int, str]:
        import docker

        mounts = {str(self.directory): {"bind": str(_INSIDE), "mode": "rw"},
                  str(self.place): {"bind": str(_WORK), "mode": "rw"}}
        argv = ["timeout", "-k", "5", str(SECONDS), "make", "--no-print-directory", "-C", str(_INSIDE), *arguments]
        try:
            client = docker.DockerClient(base_url=self.engine, timeout=SECONDS + 60)
            running = client.containers.run(
                self.image, argv, detach=True, network_mode="none", cap_drop=["ALL"],
                security_opt=["no-new-privileges"], read_only=True, tmpfs={"/tmp": ""}, volumes=mounts,
                user=f"{os.geteuid()}:{os.getegid()}", pids_limit=4096, labels={LABEL: self.place.name})
            try:
                output = _passed_on(_lines(running.logs(stream=True, follow=True)), tell)
                return int(running.wait()["StatusCode"]), output
            finally:
                running.remove(force=True)
        except (docker.errors.DockerException, OSError) as error:
            raise PartFailed(f"cannot run the ImageBuilder in the container {self.image}: {error}") from error

    def name(self, path: Path) -> str:
        return str(_WORK / path.relative_to(self.place))


def _passed_on(lines: Iterable[bytes], tell: Tell) -> str:
    """Tell each line as it comes; return all of them."""
    told = []
    for line in lines:
        told.append(line.decode(errors="replace"))
        tell(told[-1].rstrip("\n"))
    return "".join(told)


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut what comes in blocks of any size into lines."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _good(ended: tuple[int, str], what: str) -> str:
    code, output = ended
    if code:
        raise PartFailed(f"cannot {what}: make ended with {code}:\n{tools.last_lines(output)}")
    return output
