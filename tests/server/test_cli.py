"""``pdimage serve``, ``worker`` and ``flush`` on the command line: what goes wrong is told in one line."""

import os
import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdimage.cli import pdimage_command
from tests.server.conftest import Start
from tests.server.serverprocess import wait_until


@pytest.mark.parametrize(("settings", "said"), [
    ("surprise = 1", "Object contains unknown field `surprise`"),
    ("workers = 'many'", "Expected `int`, got `str` - at `$.workers`"),
    ("workers = 0", "workers must be more than 0"),
    ("listen = 'here'", "cannot listen on 'here': write HOST:PORT, for example 127.0.0.1:8000"),
    ("=", "cannot read the settings"),
    ("database = 'postgresql+psycopg://nobody@127.0.0.1:9/none'", "see the setting database"),
    ("queue = 'amqp://a'", "cannot use the queue 'amqp://a': write redis://HOST:PORT/DATABASE, or nothing"),
    ("store = 'ftp://a'", "cannot use the store ftp://a"),
    ("tls_key = 'key.pem'", "tls_certificate and tls_key need each other"),
    ("tls_key = 'k.pem'\ntls_certificate = 'c.pem'", "No such file or directory; see the settings tls_certificate and"),
    ("channel = 'https://a'", "channel and channel_root need each other"),
    ("name_length = 2", "name_length must be from 3 to 32"),
    ("registration = 'maybe'", "Invalid enum value 'maybe'"),
    ("catalogue = 'nowhere.yaml'", "cannot be read: No such file or directory"),
    ("listen = '192.0.2.1:80'", "cannot listen on 192.0.2.1:80: Cannot assign requested address; name another"),
])
def test_settings_that_cannot_be_used(tmp_path: Path, settings: str, said: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text(settings)
    done = CliRunner().invoke(pdimage_command, [
        "serve", "--no-worker", "-c", str(config), "-d", str(tmp_path / "data")])
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit), done.exception
    assert said in done.output
    assert "Traceback" not in done.output


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(pdimage_command, [
            "serve", "-d", str(tmp_path), "--no-worker", "-l", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert "Address already in use; name another address with --listen" in done.output


def test_failures_are_flushed(start: Start) -> None:
    server = start()
    failed = server.build(packages=["broken"])
    assert failed.status == 409
    assert server.build(packages=["broken"]).body == failed.body
    data = ["-d", str(server.data)]
    assert CliRunner().invoke(pdimage_command, ["flush", *data, "0" * 64]).output == "0 forgotten\n"
    assert CliRunner().invoke(pdimage_command, ["flush", *data, failed.body["request_hash"]]).output == "1 forgotten\n"
    wait_until(lambda: server.get(f"/api/build-request/{failed.body['request_hash']}").status == 404)


def test_more_processes_serve_and_are_started_again(start: Start) -> None:
    server = start(processes=2)

    def others() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                if path.read_text().rpartition(")")[2].split()[1] == str(server.pid) and \
                        b"pdimage.server.serving" in path.with_name("cmdline").read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    wait_until(others)
    first = others()[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: set(others()) - {first})
    assert all(server.get("/api/distros").status == 200 for _ in range(20))
    second = others()[0]
    server.kill()
    wait_until(lambda: not Path(f"/proc/{second}").exists())
