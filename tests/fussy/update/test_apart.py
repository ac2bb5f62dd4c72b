"""Work that is done in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from fussy.errors import SystemSetup, TooSlow, UntrustedChannel
from fussy.updating import apart


def elsewhere(number: int) -> tuple[int, int]:
    return os.getpid(), number + 1


def fails(error: BaseException) -> NoReturn:
    raise error


def test_it_is_another_process_that_works() -> None:
    process, result = apart.call(elsewhere, 41)
    assert result == 42
    assert process != os.getpid() and not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("error", [UntrustedChannel("a lie"), TooSlow("drips"), OSError(5, "Input/output error"),
                                   ModuleNotFoundError("No module named", name="tuf"), MemoryError()])
def test_errors_come_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        apart.call(fails, error)
    assert (type(raised.value), raised.value.args, vars(raised.value)) == (type(error), error.args, vars(error))
    assert getattr(raised.value, "name", "") == getattr(error, "name", "")


def test_a_mistake_of_ours_is_shown_with_its_place() -> None:
    with pytest.raises(RuntimeError, match=r"in fails[\s\S]*ZeroDivisionError: oh"):
        apart.call(fails, ZeroDivisionError("oh"))


def test_being_killed_is_told() -> None:
    with pytest.raises(SystemSetup, match="was killed by signal 9; look whether memory is short"):
        apart.call(lambda: os.kill(os.getpid(), signal.SIGKILL))


STUCK = """
import os, sys, time
from fussy.updating import apart
def stuck():
    print(os.getpid(), flush=True)
    time.sleep(600)
apart.call(stuck)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_it_ends_with_the_one_who_asked(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as asker:
        assert asker.stdout
        worker = Path("/proc", asker.stdout.readline().strip())
        assert worker.is_dir()
        asker.send_signal(number)
        asker.wait(60)
        waited = time.monotonic() + 60
        while worker.exists() and time.monotonic() < waited:
            time.sleep(0.01)
        assert not worker.exists()
