"""Commands of fussy that a page starts go on when the daemon is killed, as an upgrade does to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paradrop.lib import firmware, settings

START = ("import os, sys; from paradrop.lib import firmware, settings; settings.relocate(sys.argv[1]);"
         "settings.FIRMWARE_TARGET = sys.argv[1] + '/opt'; firmware.start(['confirm']); os.kill(os.getpid(), 9)")


@pytest.fixture
def router(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A router whose fussy takes half a second, and notes what it was asked for."""
    (home / "opt/.fussy").mkdir(parents=True)
    (home / "bin").mkdir()
    program = home / "bin/fussy"
    program.write_text(f'#!/bin/sh\nsleep 0.5\necho "$@" > {home}/asked\necho it is done\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(settings, "FIRMWARE_TARGET", str(home / "opt"))
    monkeypatch.setattr(firmware, "_last", None)
    return home


def test_a_command_outlives_the_daemon(router: Path) -> None:
    done = subprocess.run([sys.executable, "-c", START, str(router)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while not (router / "asked").exists() or firmware.said() != "it is done\n":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (router / "asked").read_text() == f"confirm --target {router}/opt\n"


def test_under_systemd_it_gets_a_scope_which_no_restart_of_the_service_ends(
        router: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = router / "bin/systemd-run"
    scope.write_text(f'#!/bin/sh\necho "$1 $2 $3" > {router}/scope\nshift 3\nexec "$@"\n')
    scope.chmod(0o755)
    monkeypatch.setattr(firmware, "_SYSTEMD", router)
    work = firmware.start(["update", "--now"])
    assert work.ended.wait(20)
    assert (work.exit_code, work.said) == (3, "it is done\n")
    assert (router / "scope").read_text() == "--scope --quiet --collect\n"
    assert (router / "asked").read_text() == f"update --now --target {router}/opt\n"
