"""The documented walk: hello-world on a real daemon and a real Docker engine."""

from pathlib import Path

import pytest
from engine import Engine
from process import PORT, Daemon, running

pytestmark = pytest.mark.docker

CHUTES = Path(__file__).resolve().parents[2] / "pdimage/chutes"
PAGE = "http://127.0.0.1:9000/"
GREETING = "Hello World from Paradrop!\n"


def test_the_documented_walk(engine_of_session: Engine, tmp_path: Path) -> None:
    with running(Daemon(tmp_path, engine_of_session)) as router:
        there = ("localhost", str(PORT))
        output = router.paradrop("chute", "install", *there, "./config.yaml", cwd=CHUTES / "hello-world")
        lines = output.splitlines()
        assert lines[0] == "Installing chute..."
        assert any(line.startswith("Step 1/") for line in lines)
        assert lines[-1] == "Chute hello-world create success"
        assert router.await_page(PAGE) == GREETING

        listed = router.paradrop("chute", "list", *there).splitlines()
        assert listed[0].split() == ["NAME", "STATE", "CONTAINER", "VERSION", "WARNING"]
        assert listed[1].split() == ["hello-world", "running", "running", "-", "-"]

        output = router.paradrop("chute", "stop", *there, "hello-world")
        assert output == "Stopping chute...\n\nChute hello-world stop success\n"
        assert router.await_page(PAGE, present=False) is None
        assert "  stopped  exited (" in router.paradrop("chute", "list", *there)

        output = router.paradrop("chute", "start", *there, "hello-world")
        assert output.splitlines()[-1] == "Chute hello-world start success"
        assert router.await_page(PAGE) == GREETING

        output = router.paradrop("chute", "delete", *there, "hello-world")
        assert output == "Removing chute...\n\nChute hello-world delete success\n"
        assert router.await_page(PAGE, present=False) is None
        assert "hello-world" not in router.paradrop("chute", "list", *there)
        assert "Traceback" not in router.log()
