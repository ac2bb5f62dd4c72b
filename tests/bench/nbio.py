"""How fast data run through `P('cat') | P('cat')`, beside the same line of a shell, and what waiting costs."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fussy.nbio import Process as P

SIZE = 1 << 30
BLOCK = bytes(256 * 1024)
PAIRS = 5
IDLE = 3.0


def seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start


def paired(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Return the medians of the seconds of both and of the ratio of each pair, run in turns after one to warm up."""
    ours()
    theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(PAIRS)]
    return (
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
        statistics.median(mine / other for mine, other in pairs),
    )


def between_processes() -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        data = Path(scratch, "data")
        data.write_bytes(BLOCK * (SIZE // 4 // len(BLOCK)))
        files = [str(data)] * 4
        pipe = (P(["cat", *files]) | P("cat")) > "/dev/null"
        shell = ["sh", "-c", 'cat "$@" | cat > /dev/null', "sh", *files]
        return paired(pipe, lambda: subprocess.run(shell, check=True))


def through_python() -> None:
    """Send the data from a generator through two processes into a function."""
    count = 0

    def counted(block: bytes) -> None:
        nonlocal count
        count += len(block)

    pipe = (BLOCK for _ in range(SIZE // len(BLOCK))) | P(["cat"]) | P(["cat"]) | counted
    for _ in pipe:
        pass
    assert count == SIZE


def idle_share() -> float:
    """Return the CPU time, of this process and of the pipe's, for each second of waiting."""

    def used() -> float:
        each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in each)

    before = used()
    (P(["sleep", str(IDLE)]) | P(["cat"]) | [])()
    return (used() - before) / IDLE


def main() -> None:
    ours, shell, ratio = between_processes()
    python = statistics.median(seconds(through_python) for _ in range(PAIRS))
    sys.stdout.write(
        f"P('cat') | P('cat')               {SIZE / ours / 1e6:6.0f} MB/s\n"
        f"the same line of a shell          {SIZE / shell / 1e6:6.0f} MB/s\n"
        f"time of ours / time of the shell  {ratio:6.2f}\n"
        f"generator | cat | cat | function  {SIZE / python / 1e6:6.0f} MB/s\n"
        f"CPU while idle                    {100 * idle_share():6.2f} %\n"
    )


if __name__ == "__main__":
    main()
