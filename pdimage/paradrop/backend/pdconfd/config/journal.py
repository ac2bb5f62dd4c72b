"""What has to be undone, kept on disk so that it is known after pdconfd was killed.

One JSON object a line; the first one is ``{"boot": ID}`` with the kernel's boot id, for a reboot undoes everything by
itself. Then ``{"number": n, "undo": {...}}`` before something is done and ``{"done": n}`` after it was undone. A last
line that was cut is ignored. Nothing is synced to disk: only a crash of the program matters, the system's is a boot.
"""

import logging
from pathlib import Path
from typing import Any

import msgspec

from paradrop.backend.pdconfd.config.effects import Effect
from paradrop.backend.pdconfd.config.run import write_private
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SPARE_LINES = 1000  # lines about what is over and done, before the file is written anew


class Journal:
    """The journal in a file; it is made when first written to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._open: dict[int, Effect] = {}
        self._lines = 0
        self._next = 0

    def read(self) -> list[Effect]:
        """Return what an earlier life left to be undone, latest first."""
        left: dict[int, Effect] = {}
        try:
            lines = Path(self.path).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        try:
            if not lines or msgspec.json.decode(lines[0]) != {"boot": _boot()}:
                return []
            for line in lines[1:]:
                entry: dict[str, Any] = msgspec.json.decode(line)
                if "done" in entry:
                    left.pop(entry["done"], None)
                else:
                    left[entry["number"]] = msgspec.convert(entry["undo"], Effect)
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            log.warning("%s: the rest of the journal cannot be read: %s", self.path, error)
        return list(reversed(left.values()))

    def clear(self) -> None:
        """Forget everything."""
        Path(self.path).unlink(missing_ok=True)
        self._open.clear()
        self._lines = 0

    def add(self, undo: Effect) -> int:
        """Note an undo before what it undoes is done. Returns the number under which it is kept."""
        self._next += 1
        self._open[self._next] = undo
        self._write({"number": self._next, "undo": undo})
        return self._next

    def done(self, number: int) -> None:
        """Note that there is nothing to undo any more."""
        self._open.pop(number, None)
        self._write({"done": number})

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            if self._lines == 0 or self._lines > 2 * len(self._open) + _SPARE_LINES:
                self._write_anew()
                return
            with open(self.path, "ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
            self._lines += 1
        except OSError as error:  # a full disk must not keep the network from coming up
            log.error("cannot write %s: %s; what is done now will not be undone after a crash", self.path, error)

    def _write_anew(self) -> None:
        pdosq.makedirs(Path(self.path).parent)
        entries: list[dict[str, Any]] = [{"boot": _boot()}]
        entries += [{"number": number, "undo": undo} for number, undo in self._open.items()]
        fresh = f"{self.path}.new"
        write_private(fresh, "".join(msgspec.json.encode(entry).decode() + "\n" for entry in entries))
        Path(fresh).rename(self.path)
        self._lines = len(entries)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
