"""Carries out one claimed request: build in a process of its own, sign in another, keep the files, tell the database.

While that goes on, a thread keeps the lease, and passes on stage and log. Whoever has lost the lease stops at once:
the request is somebody else's then.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import sqlalchemy as sa
from obstore.exceptions import BaseError

from fussy.errors import FussyError, SystemSetup
from pdimage import scratch
from pdimage.server import images, sandbox
from pdimage.server.artifacts import Artifacts
from pdimage.server.builders import Product, Task, running
from pdimage.server.buildjob import OUTCOME, STAGE, TASK, Outcome
from pdimage.server.catalogue import Catalogue
from pdimage.server.entries import File, Image, Job
from pdimage.server.requests import Requests
from pdimage.server.settings import Settings
from pdimage.server.signing import SUMS, Order, Signer

log = logging.getLogger(__name__)

LOG = "log"
# Seconds between attempts to tell the database how a job ended.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, *[10.0] * 30)
_TYPES = {".sbom.cdx.json": "sbom", ".provenance.json": "provenance", ".licences.txt": "licences",
          ".manifest": "manifest", SUMS: "sums", f"{SUMS}.sig": "sums"}


class LeaseLost(Exception):
    """The request is somebody else's now."""


class Stopped(Exception):
    """The worker was told to stop; the request goes back to the queue."""


class Heart(threading.Thread):
    """Keeps the lease of a job until it is closed. ``lost`` is set when somebody else has it."""

    def __init__(self, requests: Requests, job: Job, place: Path) -> None:
        super().__init__(name=f"heart-{job.hash[:8]}", daemon=True)
        self.lost = threading.Event()
        self.stage = ""
        self._requests = requests
        self._job = job
        self._place = place
        self._told = ""
        self._read = 0
        self._last = time.monotonic()
        self._closed = threading.Event()

    def run(self) -> None:
        """Beat four times in a lease, and within a second when there is something to tell."""
        lease = self._requests.settings.lease_seconds
        while not self._closed.wait(min(1.0, lease / 4)) and not self.lost.is_set():
            news, stage = self._news()
            if news or stage != self._told or time.monotonic() - self._last >= lease / 4:
                self._beat(news, stage)

    def close(self) -> None:
        """Stop, after the last of the log was passed on."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.join()
        while not self.lost.is_set() and (news := self._news()[0]):
            if not self._beat(news, self._told):
                return

    def _beat(self, news: bytes, stage: str) -> bool:
        """Keep the lease and pass on what is new; return whether the database took it."""
        text = news.decode("utf-8", "replace").replace("\0", "?")
        try:
            if self._requests.beat(self._job, stage, text):
                self._last, self._told = time.monotonic(), stage
                self._read += len(news)
                return True
            self.lost.set()
        except sa.exc.SQLAlchemyError as error:
            log.warning("cannot keep the lease of %s: %s", self._job.hash[:12], error)
        return False

    def _news(self) -> tuple[bytes, str]:
        """Return what is new in the log, and the stage."""
        stage, news = self.stage, b""
        with contextlib.suppress(OSError):
            stage = stage or (self._place / STAGE).read_text()
        with contextlib.suppress(OSError), (self._place / LOG).open("rb") as file:
            file.seek(self._read)
            news = file.read(64 << 10)
        return news, stage


def carry_out(job: Job, now: Catalogue, settings: Settings, requests: Requests, store: Artifacts, signer: Signer,
              stop: threading.Event) -> None:
    """Build what JOB says and record how it ended.
    :raises LeaseLost: somebody else has it now
    :raises Stopped: STOP was set
    """
    started = time.time()
    settings.work.mkdir(parents=True, exist_ok=True)
    with scratch.directory(settings.work, job.hash[:16]) as place:
        heart = Heart(requests, job, place)
        heart.start()
        try:
            outcome = _build(job, now, settings, place, heart, stop)
            if outcome.failure:
                heart.close()
                _told(lambda: requests.fail(job, outcome.failure, outcome.error))
                return
            assert outcome.product is not None
            heart.stage = "signing"
            files = _sign(job, settings, outcome.product, outcome.manifest, place, signer, started)
            if heart.lost.is_set():
                raise LeaseLost
            for file in files:
                store.put(job.hash, file)
            image = _image(job, now, outcome, files, started)
            heart.close()
            _told(lambda: requests.finish(job, image, outcome.manifest))
        except (FussyError, OSError, BaseError) as error:
            log.warning("%s: %s", job.hash[:12], error)
            reason = str(error)
            _told(lambda: requests.fail(job, "failed", reason))
        finally:
            heart.close()


def _build(job: Job, now: Catalogue, settings: Settings, place: Path, heart: Heart, stop: threading.Event) -> Outcome:
    """Run the build's process to its end."""
    request = job.request
    distro = now.distros.get(request.distro)
    if distro is None or request.version not in distro.versions:
        return Outcome(failure="failed", error=f"the catalogue does not have {request.distro} {request.version} any "
                                               "more; ask again")
    task = Task(job.hash, request, job.defaults, distro, now.target(request.distro, request.version, request.target),
                now.root, str(place), str(settings.cache), settings.engine)
    return run_task(task, settings, lost=heart.lost, stop=stop)


def run_task(task: Task, settings: Settings, *, lost: threading.Event, stop: threading.Event) -> Outcome:
    """Run a task in a process that is shut off, and return its outcome.

    :raises LeaseLost: LOST was set meanwhile
    :raises Stopped: STOP was set meanwhile
    """
    place = Path(task.place)
    (place / TASK).write_bytes(msgspec.json.encode(task))
    argv = sandbox.command(settings, [sys.executable, "-m", "pdimage.server.buildjob", str(place)], place=place,
                           network=task.distro.network, readable=readable(task))
    deadline = time.monotonic() + settings.build_seconds
    with (place / LOG).open("ab") as output, subprocess.Popen(
            argv, cwd=place, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True) as process:
        try:
            while process.poll() is None:
                if lost.is_set():
                    raise LeaseLost
                if stop.is_set():
                    raise Stopped
                if time.monotonic() > deadline:
                    return Outcome(failure="failed", error=f"the build took longer than {settings.build_seconds:g} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        finally:
            killed = process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if killed and task.engine and task.distro.container:
                process.wait()
                running.end_container(place, task.engine)
    try:
        return msgspec.json.decode((place / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return Outcome(failure="failed", error=f"the build's process ended with {process.returncode}; see the log")


def readable(task: Task) -> Sequence[Path]:
    """Return what a build reads beside its own directory: the catalogue, and what it names elsewhere."""
    import pdimage

    found = [Path(task.root), Path(str(pdimage.__file__)).parent]
    version = task.distro.versions[task.request.version]
    if version.imagebuilder and "://" not in version.imagebuilder:
        source = version.imagebuilder.format(target=task.request.target, version=task.request.version,
                                             name=task.request.target.replace("/", "-"))
        found.append(Path(task.root, source))
    return found


def _environment() -> dict[str, str]:
    import pdimage

    # a checkout that is not installed is found as the worker found it
    roots = {str(Path(str(pdimage.__file__)).parent.parent), *filter(None, sys.path[1:])}
    return {**sandbox.environment(), "PYTHONPATH": os.pathsep.join(sorted(one for one in roots if one in sys.path))}


def _sign(job: Job, settings: Settings, product: Product, manifest: dict[str, str], place: Path, signer: Signer,
          started: float) -> list[Path]:
    """Have the product signed; return all files that belong to the image."""
    output = place / "signed"
    output.mkdir()
    if product.tree:
        answer = signer.sign(Order(str(output), product.tree, job.hash, job.request.version, started))
        if answer.error:
            raise SystemSetup(answer.error)
    for name in product.files:
        shutil.move(name, output)
    name = f"{job.request.distro}-{job.request.version}-{job.hash[:12]}.manifest"
    (output / name).write_text(images.manifest_text(manifest))
    files = sorted(output.iterdir())
    (output / SUMS).write_text("".join(f"{_sha256(file)} *{file.name}\n" for file in files if file.name != SUMS))
    answer = signer.sign(Order(str(output)))
    if answer.error:
        raise SystemSetup(answer.error)
    return sorted(output.iterdir())


def _image(job: Job, now: Catalogue, outcome: Outcome, files: Sequence[Path], started: float) -> Image:
    assert outcome.product is not None
    request = job.request
    digest = images.manifest_hash(outcome.manifest)
    sysupgrade = outcome.product.sysupgrade
    if outcome.product.tree:
        sysupgrade = next(file.name for file in files if file.name.endswith(".gpg"))
    listed = tuple(File(file.name, file.stat().st_size, _sha256(file), _type(file.name, sysupgrade)) for file in files)
    version = now.distros[request.distro].versions[request.version]
    return Image(
        job.hash, images.image_hash(request, digest), digest, request.distro, request.version, request.target,
        request.profile, request.defaults, version.snapshot, job.worker, time.time(), time.time() - started,
        sysupgrade, listed, outcome.product.details)


def _type(name: str, sysupgrade: str) -> str:
    if name == sysupgrade:
        return "sysupgrade"
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), "image")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _told(tell: Callable[[], bool]) -> None:
    """Tell the database how a job ended; while it does not answer, again and again for some minutes.

    :raises LeaseLost: somebody else has the job now
    """
    for pause in (*_PAUSES, None):
        try:
            if not tell():
                raise LeaseLost
            return
        except sa.exc.OperationalError as error:
            if pause is None:
                raise
            log.warning("the database does not answer: %s", error)
            time.sleep(pause)
