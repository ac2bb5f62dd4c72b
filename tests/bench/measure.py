"""Runs one job and says what it took."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TIME_LIMIT = 900


@dataclass(frozen=True)
class Usage:
    """What a job took. ``memory`` is the peak resident size of its largest process, in bytes.

    The kernel passes that peak up from every process to the one that waits for it (getrusage(2), RUSAGE_CHILDREN), so
    it covers a whole pipeline; it can't be lower than the peak of the process that starts the job.
    """

    seconds: float
    cpu: float
    memory: int
    written: int = 0
    size: int = 0


class JobFailed(Exception):
    """A job ended with an error; the message has the end of its output."""


def run_script(script: str, env: dict[str, str], log: Path) -> Usage:
    """Run a bash script in a process group of its own, killed when it takes too long or when we are interrupted."""
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], env=env, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        signal.alarm(TIME_LIMIT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            signal.alarm(0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace")[-2000:].strip()
        raise JobFailed(f"exit code {process.returncode} of\n{script.strip()}\n{said}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
