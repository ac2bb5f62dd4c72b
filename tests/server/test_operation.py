"""What operators need: numbers, health, a log for machines, backups, and files to run it with."""

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pdimage.server.settings import Settings, load
from tests.server.conftest import Start
from tests.server.serverprocess import Server, request, write_catalogue

DEPLOY = Path(__file__).parents[2] / "pdimage/server/deploy"


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """Return every sample: the name, then the values of its labels."""
    text = server.get("/metrics").data.decode()
    return {(sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def soon(look: Callable[[], Any]) -> Any:
    """Look again and again until there is something to see, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("processes", [1, 3])
def test_metrics(start: Start, processes: int) -> None:
    server = start(processes=processes)
    for _ in range(20):
        server.get("/api/distros", Connection="close")
    server.get("/no/such/address")
    assert server.build().status == 200
    # a request is counted after its answer was sent, perhaps by another process
    counted = ("pdimage_http_requests_total", "GET", "/api/distros", "200")
    found = soon(lambda: (said := metrics(server)).get(counted) == 20 and said)
    assert found["pdimage_http_requests_total", "GET", "other", "404"] == 1
    assert found["pdimage_http_seconds_count", "/api/distros"] == 20
    assert found["pdimage_requests", "done"] == 1
    assert found["pdimage_requests", "queued"] == 0
    assert found["pdimage_images_built_total",] == 1
    assert found["pdimage_build_seconds_total",] > 0
    assert found["pdimage_queue_oldest_seconds",] == 0


def test_the_oldest_request_is_seen_waiting(start: Start) -> None:
    server = start()
    server.close()
    server.start("--no-worker")
    server.post("/api/build-request", {"distro": "tiny", "target": "x86/64", "board": "pc", "packages": []})
    assert metrics(server)["pdimage_requests", "queued"] == 1
    assert 0 < metrics(server)["pdimage_queue_oldest_seconds",] < 60


def test_health(start: Start) -> None:
    server = start()
    assert server.get("/health/live").body == {"status": "ok"}
    assert server.get("/health/ready").body == {"status": "ok"}
    shutil.rmtree(server.data / "store")
    (server.data / "store").write_text("in the way")
    answer = server.get("/health/ready")
    assert answer.status == 503
    assert answer.body["reasons"]["store"].startswith("cannot reach the store of images")
    assert server.get("/health/live").status == 200


def test_a_log_for_machines(start: Start) -> None:
    server = start(log_format="json", log_access=True)
    server.get("/api/distros", **{"User-Agent": "a"})
    access = soon(lambda: next((line for text in server.log.read_text().splitlines() if text.startswith("{")
                                if (line := json.loads(text))["message"].startswith("GET /api/distros 200")), None))
    assert (access["level"], access["logger"], access["path"], access["status"], access["client"]) == (
        "info", "pdimage.server.metrics", "/api/distros", 200, "127.0.0.1")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run pdimage; return its end, with what it said to stderr."""
    return subprocess.run([sys.executable, "-m", "pdimage", *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)


@pytest.mark.parametrize("images", [False, True])
def test_a_server_comes_back_from_its_backup(start: Start, tmp_path: Path, images: bool) -> None:
    server = start()
    built = server.build().body
    key = server.get("/signing-key.asc").data
    authority = (server.data / "registry/authority.pem").read_bytes()
    file = tmp_path / "backup.tar"
    assert run("backup", "--data", server.data, file, *(["--images"] if images else [])).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    server.close()

    assert run("restore", "--data", tmp_path / "again", file).returncode == 0
    other = Server(tmp_path / "again", {"catalogue": str(write_catalogue(tmp_path / "catalogue"))}).start()
    try:
        assert other.get(f"/api/build-request/{built['request_hash']}").body == built
        assert other.get("/signing-key.asc").data == key
        assert (other.data / "registry/authority.pem").read_bytes() == authority
        download = other.get(f"/store/{built['request_hash']}/{built['sysupgrade']}")
        assert download.status == (200 if images else 404)
        assert other.build(packages=["clock"]).status == 200
    finally:
        other.close()


def test_a_backup_is_not_restored_over_something(shared: Server, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    run("backup", "--data", shared.data, file)
    said = run("restore", "--data", shared.data, file)
    assert said.returncode == 1
    assert "there is something in it; name an empty directory with --data" in said.stderr


@pytest.mark.parametrize("harm", ["cut", "empty", "other", "damaged"])
def test_what_is_no_backup_is_not_restored(shared: Server, tmp_path: Path, harm: str) -> None:
    file, target = tmp_path / "backup.tar", tmp_path / "again"
    run("backup", "--data", shared.data, file)
    if harm == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        content = {"other": ("backup.json", b'{"format": 9, "database": "sqlite"}'),
                   "damaged": ("database", b"no database at all, though long enough to be one" * 100)}[harm]
        with tarfile.open(file) as archive:
            archive.extractall(tmp_path / "parts", filter="data")
        (tmp_path / "parts" / content[0]).write_bytes(content[1])
        with tarfile.open(file, "w") as archive:
            archive.add(tmp_path / "parts", ".")
    said = run("restore", "--data", target, file)
    assert said.returncode == 1 and said.stderr.startswith("pdimage restore: cannot restore"), said.stderr
    assert not target.exists()


def test_backup_of_nothing(tmp_path: Path) -> None:
    said = run("backup", "--data", tmp_path / "none", tmp_path / "backup.tar")
    assert "there is no such database; name the server's directory with --data" in said.stderr
    assert not (tmp_path / "backup.tar").exists()


@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_systemd_units(verb: str, tmp_path: Path) -> None:
    file = DEPLOY / f"pdimage-{verb.replace('serve', 'server')}.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(file)
    command = unit["Service"]["ExecStart"].split()
    assert command[:2] == ["/opt/pdimage/bin/pdimage", verb]
    assert run(verb, *command[2:], "--help").returncode == 0
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    here = tmp_path / file.name
    here.write_text(file.read_text().replace(command[0], sys.executable).replace("User=pdimage\n", ""))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_compose_file_names_settings_and_verbs_that_exist() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    known = {f"PDIMAGE_SERVER_{name.upper()}" for name in Settings.__struct_fields__}
    for name in ("server", "worker"):
        assert set(services[name]["environment"]) <= known
        assert run(*services[name]["command"], "--help").returncode == 0
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert {word.split("=")[0] for word in dockerfile.split() if word.startswith("PDIMAGE_SERVER_")} <= known


def test_the_example_settings_are_good() -> None:
    assert load(DEPLOY / "server.toml", {}).log_format == "json"


def test_a_server_that_is_told_to_stop_ends_with_all_its_processes(start: Start) -> None:
    server = start(processes=3, lease_seconds=600)
    digest = server.post("/api/build-request", request(packages=["slow"])).body["request_hash"]
    soon(lambda: server.get(f"/api/build-request/{digest}").headers.get("X-Imagebuilder-Status") == "building")
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert len(children) >= 2
    server.close()
    assert [child for child in children if Path("/proc", child).exists()] == []
    # the build that was under way was finished, or is nobody's now, whatever its lease says
    server.start("--no-worker")
    found = metrics(server)
    assert found["pdimage_requests", "queued"] + found["pdimage_requests", "done"] == 1


@pytest.mark.slow
def test_a_serving_process_that_does_not_end_is_killed(start: Start) -> None:
    server = start("--no-worker", processes=3)
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGSTOP)
    server.close()  # which does not take it for hung, and kill it, before 30 seconds
    assert "a serving process has not ended within 15 seconds and is killed" in server.log.read_text()
    assert [child for child in children if Path("/proc", child).exists()] == []
