"""Runs upgrades on a disk that can lose power, and boots from what is left of it."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fussy.target import Target
from pdimage.errors import PartFailed
from pdimage.lab import booting, filesystems, unsynced
from pdimage.lab.filesystems import FileSystem
from pdimage.lab.scenes import RECOVER, Scene, Workshop
from pdimage.lab.volatile import Disk, copy_file

_SECONDS = 120.0


class Rig:
    """A workshop, and disks on which each scene can begin, for one kind of file system; all below PLACE, made for it.

    Commands that run on a disk which can lose power do so without syncs (WITHOUT_SYNC), or leave out those at the
    points WITHOUT (see :mod:`pdimage.lab.unsynced`).
    """

    def __init__(self, kind: FileSystem, place: Path, *, without_sync: bool = False, without: str = "") -> None:
        self.kind, self.place = kind, place
        preloaded = {"LD_PRELOAD": str(unsynced.eatmydata())} if without_sync else {}
        self.environment = {**os.environ, **preloaded, unsynced.WITHOUT: without}
        self._golden: dict[tuple[tuple[str, ...], ...], Path] = {}
        (place / "workshop").mkdir(parents=True)
        self.workshop = Workshop(place / "workshop")

    def copy(self, scene: Scene) -> Path:
        """Return a disk on which SCENE can begin: the same file each time, made anew."""
        made = self.place / "disk.image"
        copy_file(self._prepared(scene), made)
        return made

    def _prepared(self, scene: Scene) -> Path:
        if scene.before not in self._golden:
            image = self.place / f"golden-{len(self._golden)}"
            filesystems.make(self.kind, image)
            with self.target(image) as target:
                self.workshop.prepare(scene, target.root)
            self._golden[scene.before] = image
        return self._golden[scene.before]

    def target(self, source: Path) -> AbstractContextManager[Target]:
        """Mount SOURCE and have the target that is on it."""
        return booting.target(self.kind, source, self.place)

    def run(self, disk: Disk, words: tuple[str, ...], code: int, then: Callable[[], object]) -> bool:
        """Run a fussy command on DISK until it ends with CODE, call THEN at once, and unmount.

        Return False if the power went before the command had ended; THEN is not called.

        :raises PartFailed: it ended otherwise, with the power still on
        """
        try:
            with filesystems.attached(disk, self.place) as export, self.target(export) as target:
                # what a boot runs is skipped where nothing was installed yet
                skipped = words == RECOVER and not target.root.exists()
                if not skipped and not self._ended(disk, self.workshop.argv(words, target.root), code):
                    return False
                disk.mark("done")
                then()
                return True
        except PartFailed:
            if disk.has_power:
                raise
            return False  # it went while mounting

    def _ended(self, disk: Disk, argv: Sequence[str], code: int) -> bool:
        log = self.place / "command.log"
        with log.open("w") as output:
            process = subprocess.Popen(argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=output)
        deadline = time.monotonic() + _SECONDS
        while process.poll() is None and disk.has_power and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.wait()
        if process.returncode == code:
            return True
        if disk.has_power:
            raise PartFailed(f"cannot go on: {' '.join(argv)} ended with {process.returncode}: "
                             f"{log.read_text().strip()}")
        return False

    def boot(self, image: Path, scene: Scene, done: bool) -> tuple[bool, list[str]]:
        """Boot from IMAGE (see :func:`pdimage.lab.booting.boot`)."""
        return booting.boot(self.kind, image, self.place, scene, done)
