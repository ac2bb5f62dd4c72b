"""What a build can't do: read keys or the database, reach the network, write elsewhere; and who signs what."""

import io
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from fussy.errors import SystemSetup
from pdimage.server import sandbox, signing
from pdimage.server.settings import Settings
from pdimage.server.signing import Order, Signer
from tests.fussy.conftest import Keys
from tests.server.conftest import Start
from tests.server.parts import free_port
from tests.server.serverprocess import Server, wait_until

OPENWRT = {"distro": "openwrt", "version": "24.10.0", "target": "ath79/generic", "board": "acme_router",
           "packages": ["vim"]}


def build_log(server: Server, **wish: object) -> str:
    answer = server.build(**{**OPENWRT, **wish})
    assert answer.status == 200, answer.data
    return server.get(answer.body["log"]).data.decode()


@pytest.mark.parametrize("shut_off", ["required", "off"])
def test_what_a_build_sees(start: Start, tmp_path: Path, shut_off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a build, here in OpenWrt's: shut off, and to show that this is what keeps it away, without."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    data = tmp_path / "data"
    spy = tmp_path / "catalogue/standin/spy"
    spy.parent.mkdir(parents=True)
    port = free_port()
    spy.write_text(f"""
        for file in {data}/keys/pubring.kbx {data}/server.db {data}/queue.db {data}/store; do
            [ -e "$file" ] && [ -n "$(ls -A "$file")" ] && echo "SEES $file"; done
        env | grep -q secret && echo 'SEES the secret'
        touch /usr/share/spied 2>/dev/null && echo 'WROTE to /usr/share' && rm /usr/share/spied
        [ "$(ls -d /proc/[0-9]* | wc -l)" -gt 20 ] && echo 'SEES other processes'
        python3 -c 'import socket; socket.create_connection(("127.0.0.1", {port}), 1)' && echo 'REACHED the network'
        echo done >&2
        """)
    server = start(openwrt=True, sandbox=shut_off, listen=f"127.0.0.1:{port}")
    log = build_log(server)
    assert "done\n" in log
    found = {line for line in log.splitlines() if line.startswith(("SEES", "WROTE", "REACHED"))}
    without = {f"SEES {data}/keys/pubring.kbx", f"SEES {data}/server.db", f"SEES {data}/queue.db",
               "WROTE to /usr/share", "SEES other processes", "REACHED the network"}
    if shut_off == "required":
        assert found == set()
    else:
        assert without <= found
    assert "SEES the secret" not in found


def test_a_hash_counts_whole_or_not_at_all(start: Start) -> None:
    server = start()
    answer = server.build().body
    for path, digest in (("/api/build-request/", answer["request_hash"]), ("/api/image/", answer["image_hash"]),
                         ("/api/manifest/", answer["manifest_hash"]), ("/api/v1/build/", answer["request_hash"])):
        assert len(digest) == 64
        assert server.get(path + digest).status == 200
        for part in (digest[:12], digest[:-1], digest.upper(), f"{digest}0"):
            assert server.get(path + part).status == 404
    assert server.get(f"/store/{answer['request_hash'][:12]}/{answer['sysupgrade']}").status == 404


def test_images_of_different_requests_never_share_a_place(start: Start) -> None:
    server = start()
    wishes: list[dict[str, object]] = [{}, {"defaults": "echo 1"}, {"packages_versions": {"motd": "2"}}]
    digests = [server.build(**wish).body["request_hash"] for wish in wishes]
    assert len(set(digests)) == 3
    assert sorted(path.name for path in (server.data / "store").iterdir()) == sorted(digests)


def test_the_signing_process_signs_only_what_says_what_it_is(tmp_path: Path, keys: Keys) -> None:
    tree = tmp_path / "tree"
    (tree / ".fussy").mkdir(parents=True)
    (tree / ".fussy/release.json").write_text(
        '{"version": "1.1", "metadata": {"request": "%s"}}' % ("a" * 64))
    signer = Signer(Settings(data=str(tmp_path), gnupghome=str(keys.home), sign_with=keys.signer))
    try:
        def order(digest: str, version: str) -> signing.Answer:
            return signer.sign(Order(str(tmp_path), str(tree), digest, version, time.time()))

        assert order("b" * 64, "1.1").error == \
            "cannot sign this tree: it is not for the request bbbbbbbbbbbb, version 1.1"
        first = signer._running()
        first.kill()
        first.wait()
        assert order("a" * 64, "1.0").error == \
            "cannot sign this tree: it is not for the request aaaaaaaaaaaa, version 1.0"
        assert signer._running().pid != first.pid
    finally:
        signer.close()
    with pytest.raises(SystemSetup, match="cannot sign this tree"):
        signing.check(tree, "", "1.1")


def test_sums_are_signed_as_openwrt_verifies_them(start: Start, tmp_path: Path) -> None:
    subprocess.run(["signify-openbsd", "-G", "-n", "-p", str(tmp_path / "key.pub"), "-s", str(tmp_path / "key.sec")],
                   check=True, timeout=60)
    server = start(openwrt=True, signify_key=str(tmp_path / "key.sec"))
    answer = server.build(**OPENWRT).body
    for name in ("sha256sums", "sha256sums.sig"):
        (tmp_path / name).write_bytes(server.get(f"{answer['files']}{name}").data)
    subprocess.run(["signify-openbsd", "-V", "-p", "key.pub", "-m", "sha256sums", "-x", "sha256sums.sig"], check=True,
                   timeout=60, cwd=tmp_path)
    assert f"{answer['sha256']} *{answer['sysupgrade']}\n" in (tmp_path / "sha256sums").read_text()


def builder_image() -> bytes:
    """Return a root file system with a static busybox and make, as tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("tmp", "proc", "builder", "work"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(Path(shutil.which("busybox") or "").resolve(), "bin/busybox")
        for name in ("sh", "awk", "cat", "cp", "echo", "grep", "ip", "ls", "sed", "sha256sum", "sort", "timeout",
                     "touch"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        make = shutil.which("make") or ""
        tar.add(Path(make).resolve(), "usr/bin/make")
        listed = subprocess.run(["ldd", make], capture_output=True, text=True, check=True, timeout=60).stdout
        for word in listed.split():
            if word.startswith("/"):
                tar.add(Path(word).resolve(), word[1:])
    return stream.getvalue()


@pytest.mark.slow
def test_an_imagebuilder_in_a_container_without_privileges(start: Start, tmp_path: Path) -> None:
    from tests.paradrop import engine as engines

    spy = tmp_path / "catalogue/standin/spy"
    spy.parent.mkdir(parents=True)
    with engines.running() as engine:
        engine.client.import_image_from_data(builder_image(), repository="builder", tag="latest")
        server = start(openwrt=True, engine=engine.url)
        catalogue = tmp_path / "catalogue/catalogue.yaml"
        catalogue.write_text(catalogue.read_text().replace("builder: imagebuilder", "builder: imagebuilder\n"
                                                           "    container: builder:latest"))
        (tmp_path / "catalogue/standin/standin.sh").write_text(
            (tmp_path / "catalogue/standin/standin.sh").read_text().replace("echo \"$PROFILE\" >> built", """
                grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; ip link | grep -c mtu
                touch /spied 2>/dev/null || echo 'root is read-only'; ls /"""))
        server.close()
        server.start()
        log = build_log(server)
        assert "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n1\nroot is read-only\n" in log
        wait_until(lambda: engine.client.containers(all=True) == [])  # the surveys of other versions end, too


def test_builds_that_must_be_shut_off_are_refused_where_they_cannot_be(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "works", lambda: False)
    assert not sandbox.is_used(Settings(data=str(tmp_path)))
    with pytest.raises(SystemSetup, match="install bubblewrap"):
        sandbox.is_used(Settings(data=str(tmp_path), sandbox="required"))
