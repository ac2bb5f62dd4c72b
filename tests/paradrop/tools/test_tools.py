"""The paradrop command: what it prints, its exit codes, and what it sends."""

import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from process import Daemon, running

from paradrop.lib import settings
from paradrop.tools import display, project, tokens
from paradrop.tools.cli import main
from paradrop.tools.errors import BadProject

CONFIG = {"name": "hello", "owner": "me", "dockerfile": {"local": "Dockerfile"}}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that takes every update for done."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home = tmp_path_factory.mktemp("router")
    with running(Daemon(home, settings={"PDFCD_PORT": port, "FC_BOUNCE_UPDATE": "bounced 100%"})) as router:
        yield router


@pytest.fixture
def chute(tmp_path: Path) -> Path:
    """A chute's directory."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    return tmp_path


@pytest.fixture(autouse=True)
def own_tokens(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the tokens of the user; the settings, which the command takes from its environment, are put back."""
    monkeypatch.setenv("PARADROP_CONFIG_DIR", str(tmp_path / "tokens"))
    monkeypatch.delenv("PARADROP_TOKEN", raising=False)


def run(daemon: Daemon, *words: str, code: int = 0, **more: str) -> Result:
    """Run a command on the daemon: HOST PORT go after its first two words, or the first, as the documents have it."""
    at = 1 if words[0] == "logs" else 2
    place = ["localhost", daemon.settings["PDFCD_PORT"]]
    result = CliRunner().invoke(main, [*words[:at], *place, *words[at:]], env={
        "RUNTIME_HOME_DIR": daemon.environment["RUNTIME_HOME_DIR"], **more})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_documented_lines(daemon: Daemon, chute: Path) -> None:
    path = str(chute / "config.yaml")
    assert run(daemon, "chute", "install", path).output == "Installing chute...\n\nbounced 100%\n"
    assert run(daemon, "chute", "update", path).output == "Updating chute...\n\nbounced 100%\n"
    for verb, doing in (("delete", "Removing"), ("start", "Starting"), ("stop", "Stopping")):
        assert run(daemon, "chute", verb, "hello").output == f"{doing} chute...\n\nbounced 100%\n"


def test_what_a_router_says_of_itself(daemon: Daemon) -> None:
    assert "chutes: none" in run(daemon, "router", "status").output
    assert json.loads(run(daemon, "router", "status", "--json").output)["chutes"] == {}
    assert json.loads(run(daemon, "router", "config", "--json").output) is not None
    assert run(daemon, "chute", "list").output.split() == ["NAME", "STATE", "CONTAINER", "VERSION", "WARNING"]
    assert "MESSAGE" in run(daemon, "router", "changes").output
    assert re.match(r"\d{4}-\d\d-\d\d [\d:]{8}Z \w+ [\w.]+: ", run(daemon, "logs", "-n", "5").output)


def test_logging_in_and_out(daemon: Daemon, tmp_path: Path) -> None:
    run(daemon, "router", "password", "--password", "long enough")
    far = {"RUNTIME_HOME_DIR": str(tmp_path / "another computer")}
    refused = run(daemon, "router", "status", code=5, **far)
    assert len(refused.output.splitlines()) == 1
    assert f"paradrop router login localhost {daemon.settings['PDFCD_PORT']}" in refused.output
    run(daemon, "router", "login", "--password", "wrong one", code=5, **far)
    assert "Logged in as admin" in run(daemon, "router", "login", "--password", "long enough", **far).output
    place = tmp_path / "tokens/tokens.json"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    run(daemon, "router", "status", **far)
    run(daemon, "router", "logout", **far)
    assert json.loads(place.read_text()) == {}
    run(daemon, "router", "status", code=5, **far)
    run(daemon, "router", "status", code=5, PARADROP_TOKEN="nonsense")


def test_failures_have_one_line_and_their_code(daemon: Daemon, chute: Path) -> None:
    missing = run(daemon, "chute", "restart", "nobody", code=1)
    assert missing.output.splitlines()[-1] == "paradrop chute restart: there is no chute nobody"
    run(daemon, "chute", "logs", "nobody", code=1)
    run(daemon, "router", "config", "nothing", code=1)
    usage = CliRunner().invoke(main, ["chute", "stop", "localhost", "99999", "x"])
    assert usage.exit_code == 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gone = CliRunner().invoke(main, ["chute", "stop", "localhost", str(probe.getsockname()[1]), "x"])
    assert gone.exit_code == 4
    assert gone.output.splitlines()[-1].startswith("paradrop chute stop: cannot reach a router at localhost port ")
    assert "refused" in gone.output
    (chute / "config.yaml").write_text("name: [")
    wrong = run(daemon, "chute", "install", str(chute / "config.yaml"), code=3)
    assert len(wrong.output.splitlines()) == 1


@pytest.mark.parametrize(("words", "text"), [
    (["logs"], "write NAME, or HOST PORT"), (["logs", "a", "1", "b"], "write NAME, or HOST PORT"),
    (["logs", "localhost", "none"], "not a valid integer"), (["logs", "localhost", "0"], "not in the range"),
    (["chute", "list", "localhost"], "Missing argument 'PORT'"),
    (["chute", "list", "-r", "aardvark", "localhost", "9999"], "unexpected extra arguments (localhost 9999)"),
])
def test_a_router_is_named_in_one_way(words: list[str], text: str) -> None:
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.output.count(text)) == (2, 1), result.output


@pytest.mark.parametrize("words", [
    ["list"], ["logs", "aardvark"], ["logs", "-r", "aardvark"], ["chute", "stop", "-raardvark", "hello"],
    ["chute", "list", "--router=aardvark"], ["router", "status", "-r", "aardvark"],
    ["router-provision", "aardvark", "localhost", "14231"],
])
def test_routers_of_the_server_want_a_login(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 5
    assert result.output.endswith(": You must login first. (paradrop login)\n")


def serve_once(answer: bytes) -> int:
    """Answer one connection with these bytes; return the port."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()

    def work() -> None:
        with server, server.accept()[0] as connection:
            connection.settimeout(5)
            connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # a close with data unread would be a reset
                pass

    threading.Thread(target=work, daemon=True).start()
    return int(server.getsockname()[1])


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_routers_are_listed_with_how_they_are() -> None:
    one = {"awake": False, "provisioned": 1.0, "seen": None, "outcome": None, "incident": ""}
    outcome = {"outcome": "reverted", "line": "firmware-9: the page is not there"}
    found = {"routers": [
        {**one, "pdid": "pd.joe.aardvark", "awake": True, "outcome": outcome},
        {**one, "pdid": "pd.joe.badger", "seen": 1000000000.0, "incident": "another router used this identity"},
        {**one, "pdid": "pd.joe.cat", "provisioned": None}]}
    port = serve_once(HEAD + json.dumps(found).encode())
    result = CliRunner().invoke(main, ["list"], env={"PARADROP_SERVER": f"http://127.0.0.1:{port}",
                                                     "PARADROP_TOKEN": "t0ken"})
    assert result.output == (
        "routers\n"
        "  pd.joe.aardvark  awake  reverted: firmware-9: the page is not there\n"
        "  pd.joe.badger    asleep since 2001-09-09 01:46Z\n"
        "    another router used this identity\n"
        "  pd.joe.cat       not provisioned\n")


@pytest.mark.parametrize(("answer", "code", "last"), [
    (HEAD + b'one\n{"success": true, "message": "Chute a%2Fb stop success"}', 0, "Chute a/b stop success"),
    (HEAD + b'{"success":false,"message":"No%20chute"}\n', 1, "ERROR: Failed to stop chute.(No chute)"),
    (HEAD + b"Step 1\n", 4, "cannot tell how it ended"),
    (HEAD, 4, "cannot tell how it ended"),
    (HEAD + b'[1]\n', 4, "cannot tell how it ended"),
    (HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", 4, "cannot tell how it ended"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", 1, "paradrop chute stop: <html>"),
    (b"SSH-2.0-OpenSSH\r\n", 4, "cannot reach a router"),
    (b"", 4, "cannot reach a router"),
])
def test_answers_of_all_kinds(answer: bytes, code: int, last: str) -> None:
    result = CliRunner().invoke(main, ["chute", "stop", "127.0.0.1", str(serve_once(answer)), "x"])
    assert result.exit_code == code, result.output
    assert last in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


def test_something_that_is_no_router() -> None:
    port = str(serve_once(HEAD + b"<html>a printer</html>"))
    result = CliRunner().invoke(main, ["chute", "list", "127.0.0.1", port])
    assert (result.exit_code, len(result.output.splitlines())) == (4, 1)
    assert "it is not a router's API" in result.output


def test_progress_cannot_steer_the_terminal() -> None:
    answer = HEAD + b"\x1b[2Jgone\x07\n" + b'{"success": true, "message": "ok"}'
    result = CliRunner().invoke(main, ["chute", "stop", "127.0.0.1", str(serve_once(answer)), "x"])
    assert "\x1b" not in result.output
    assert "gone" in result.output


def test_a_terminal_sees_a_moving_line(daemon: Daemon) -> None:
    answer = HEAD + b"Step 1/2 : FROM x\nStep 2/2 : CMD y\n" + b'{"success": false, "message": "broken"}'
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paradrop.tools", "chute", "stop", "127.0.0.1", str(serve_once(answer)), "x"],
        stdout=terminal, stderr=terminal, stdin=terminal, env=daemon.environment)
    os.close(terminal)
    seen = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(controller)
    assert process.wait(20) == 1
    assert b"\r\x1b[K" in seen
    assert seen.endswith(b"Step 1/2 : FROM x\r\nStep 2/2 : CMD y\r\nERROR: Failed to stop chute.(broken)\r\n")


def test_the_moving_line_stays_inside_the_terminal() -> None:
    out = io.StringIO()
    shown = display.Display(out, moving=True)
    with shown.running():
        shown.line("x" * 500)
        threading.Event().wait(0.3)
    assert max(len(part) for part in out.getvalue().split("\r\x1b[K")) < 200
    assert out.getvalue().endswith("\r\x1b[K")


def test_projects(chute: Path) -> None:
    found = project.read(chute / "config.yaml")
    assert (found.config["dockerfile"], found.archive) == ("FROM busybox\n", None)
    assert project.read(chute).config == found.config
    (chute / "Dockerfile").write_text("FROM busybox AS build\nCOPY --from=build /x /y\nADD https://example.org/x /x\n")
    assert project.read(chute).archive is None
    (chute / "Dockerfile").write_text("FROM busybox\nCOPY www /www\n")
    (chute / "www").mkdir()
    (chute / "www/index.html").write_text("hello")
    (chute / ".git").mkdir()
    (chute / ".git/config").write_text("secret")
    archive = project.read(chute).archive
    assert archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(tar.getnames()) == ["Dockerfile", "paradrop.yaml", "www", "www/index.html"]
        file = tar.extractfile("paradrop.yaml")
        assert file and yaml.safe_load(file)["name"] == "hello"


@pytest.mark.parametrize(("text", "message"), [
    ("a: [", "line 1"), ("- a", "not a mapping"), ("{name: xx}", "owner is missing"),
    ("name: xx\nowner: y", "dockerfile"),
    ("name: xx\nowner: y\ndockerfile: {local: ../Dockerfile}", "dockerfile.local"),
    ("name: xx\nowner: y\ndockerfile: {remote: z}", "not supported yet"),
    ("name: xx\nowner: y\ndockerfile: {local: Nothing}", "cannot read the Dockerfile"),
    ("name: X!\nowner: y\ndockerfile: {inline: FROM x}\nnonsense: 1", "nonsense"),
])
def test_projects_that_are_wrong(chute: Path, text: str, message: str) -> None:
    (chute / "config.yaml").write_text(text)
    with pytest.raises(BadProject, match=re.escape(message)):
        project.read(chute / "config.yaml")
    with pytest.raises(BadProject, match="cannot read"):
        project.read(chute / "nothing.yaml")


def test_a_directory_without_a_descriptor_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=r"there is neither a paradrop\.yaml nor a config\.yaml in it"):
        project.read(tmp_path / ".")


def test_links_do_not_travel(chute: Path) -> None:
    (chute / "Dockerfile").write_text("FROM busybox\nCOPY . /x\n")
    (chute / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadProject, match="neither a file nor a directory"):
        project.read(chute)


def test_tokens_are_for_one_router(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.keep("a", 1, "x")
    tokens.keep("a", 2, "y")
    assert (tokens.find("a", 1), tokens.find("a", 2), tokens.find("b", 1)) == ("x", "y", None)
    path = Path(settings.RUNTIME_HOME_DIR) / "api/token"
    path.parent.mkdir(parents=True)
    path.write_text("root's\n")
    assert (tokens.find("localhost", 5), tokens.find("127.0.0.1", 5), tokens.find("b", 5)) == ("root's", "root's", None)
    path.unlink()
    monkeypatch.setattr(settings, "trialDirectory", lambda: str(home / "trial"))
    assert tokens.find("localhost", 5) is None
    (home / "trial/run/api").mkdir(parents=True)
    (home / "trial/run/api/token").write_text("root's on trial\n")
    assert tokens.find("localhost", 5) == "root's on trial"
    path.parent.mkdir(exist_ok=True)
    path.write_text("left by a daemon that was killed\n")
    os.utime(path, (1, 1))
    assert tokens.find("localhost", 5) == "root's on trial"
