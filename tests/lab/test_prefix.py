"""Environments on paper: descriptions, addresses, leases, locks, settings, templates. No machine is started."""

import functools
import hashlib
import json
import multiprocessing
import os
import subprocess
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fussy.errors import FussyError, SystemSetup
from pdimage.errors import Mistakes
from pdimage.lab import acceleration, config, description, dirlock, subnet_lease, sysprep, topology, utils
from pdimage.lab.templates import TemplateFailed, TemplateRepository, TemplateStore
from pdimage.lab.utils import CommandStatus, RollbackContext, VectorThread


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDIMAGE_LAB_LEASE_DIR", str(tmp_path / "leases"))


def uuid_of(place: Path, name: str) -> Path:
    (place / name).mkdir()
    path = place / name / "uuid"
    path.write_text(hashlib.md5(name.encode()).hexdigest())
    return path


# Leases


def test_no_two_environments_get_one_subnet_and_a_stale_lease_is_taken_over(tmp_path: Path) -> None:
    uuids = [uuid_of(tmp_path, f"prefix-{number}") for number in range(11)]
    got = [subnet_lease.acquire(uuid) for uuid in uuids[:10]]
    assert got == [f"192.168.{number}.1" for number in range(200, 210)]
    with pytest.raises(FussyError, match="all of 192.168.200.0 to 192.168.209.0 are in use; destroy"):
        subnet_lease.acquire(uuids[10])

    uuids[3].unlink()  # that environment was deleted by hand
    assert subnet_lease.acquire(uuids[10]) == "192.168.203.1"
    uuids[4].write_text("another prefix is there now")
    assert subnet_lease.acquire(uuids[10]) == "192.168.204.1"
    subnet_lease.release("192.168.205.0")
    assert subnet_lease.acquire(uuids[10]) == "192.168.205.1"


def _lease_all(uuid: Path, results: Any) -> None:
    got = []
    for _ in range(5):
        try:
            got.append(subnet_lease.acquire(uuid))
        except FussyError:
            break
    results.put(got)


def test_environments_that_are_made_at_once_get_different_subnets(tmp_path: Path) -> None:
    results: Any = multiprocessing.get_context("fork").Queue()
    processes = [multiprocessing.Process(target=_lease_all, args=(uuid_of(tmp_path, f"prefix-{number}"), results))
                 for number in range(4)]
    for process in processes:
        process.start()
    got = [subnet for _ in processes for subnet in results.get(timeout=60)]
    for process in processes:
        process.join(60)
    assert sorted(got) == [f"192.168.{number}.1" for number in range(200, 210)]


# Locks


def test_a_lock_is_shared_or_held_alone_until_it_is_given_back_or_its_holder_is_gone(tmp_path: Path) -> None:
    one, two = uuid_of(tmp_path, "one"), uuid_of(tmp_path, "two")
    assert dirlock.trylock(tmp_path, False, one)
    assert dirlock.trylock(tmp_path, False, two)
    assert not dirlock.trylock(tmp_path, True, one)
    dirlock.unlock(tmp_path, two)
    assert dirlock.trylock(tmp_path, True, one)
    assert not dirlock.trylock(tmp_path, False, two)
    one.unlink()
    dirlock.lock(tmp_path, True, two)


# Settings


def test_the_environment_goes_before_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lab.conf"
    file.write_text("# settings\naccel = tcg\ncache = /from/file\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/log_level").write_text("info\n")
    monkeypatch.setattr("pdimage.lab.constants.CONFIG_FILES", (str(tmp_path / "missing"), str(file)))
    monkeypatch.setattr("pdimage.lab.constants.CONFIG_DIRS", (str(tmp_path / "conf.d"),))
    monkeypatch.setenv("PDIMAGE_LAB_CACHE", "/from/environment")
    assert config.get("accel") == "tcg"
    assert config.get("cache") == "/from/environment"
    assert config.get("log_level") == "info"
    assert config.get("nothing", 7) == 7
    with pytest.raises(KeyError, match="set PDIMAGE_LAB_NOTHING or write"):
        config.get("nothing")


# Descriptions


def test_all_mistakes_of_a_description_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "LagoInitFile"
    file.write_text("""nets:
  wan: {type: nat, colour: red}
  lan: {type: switch}
domains:
  router:
    memory: 1
    flavour: sturdy
    nics: [{net: wlan}]
    disks: [{type: empty}, {type: nbd, url: "http://disk"}]
""")
    with pytest.raises(Mistakes) as caught:
        description.load(file)
    assert [str(mistake).replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes] == [
        "LagoInitFile:2: nets.wan.colour: unknown; known here: dhcp, dns_domain_name, gw, management, serve, type",
        "LagoInitFile:3: nets.lan.type: must be one of nat, bridge",
        "LagoInitFile:6: domains.router.memory: must be a whole number from 128 to 1048576",
        "LagoInitFile:7: domains.router.flavour: must be one of minimal, router",
        "LagoInitFile:8: domains.router.nics[0].net: there is no network wlan; the networks are: wan, lan",
        "LagoInitFile:9: domains.router.disks[0].size: is needed for a disk of type empty",
        "LagoInitFile:9: domains.router.disks[1].url: must be an address such as nbd:unix:/run/disk",
        "LagoInitFile:8: domains.router.nics: needs a card in wan, over which machines are reached",
    ]


def test_addresses_are_given_once_and_never_from_the_range_of_dhcp() -> None:
    conf: dict[str, Any] = {
        "nets": {"wan": {"name": "wan", "type": "nat", "gw": "192.168.200.1", "mapping": {},
                         "dhcp": {"start": 3, "end": 253}}},
        "domains": {name: {"name": name, "nics": [{"net": "wan"}]} for name in ("one", "two")}}
    topology.allocate_ips_to_nics(conf)
    assert conf["nets"]["wan"]["mapping"] == {"one": "192.168.200.2", "two": "192.168.200.254"}
    conf["domains"]["three"] = {"name": "three", "nics": [{"net": "wan"}]}
    with pytest.raises(RuntimeError, match="none is left; give DHCP a smaller range"):
        topology.allocate_ips_to_nics(conf)
    conf["domains"]["three"]["nics"] = [{"net": "wan", "ip": "192.168.200.2"}]
    with pytest.raises(RuntimeError, match="192.168.200.2 is there twice"):
        topology.register_preallocated_ips(conf)


# Undoing, and working in parallel


def test_a_rollback_tries_every_undo_and_raises_what_went_wrong_first() -> None:
    done: list[int] = []

    def undo(number: int) -> None:
        done.append(number)
        if number == 2:
            raise OSError("second undo")

    with pytest.raises(ValueError, match="the work"), RollbackContext() as rollback:
        for number in (1, 2, 3):
            rollback.prependDefer(undo, number)
        rollback.defer(undo, 4)
        raise ValueError("the work")
    assert done == [3, 2, 1, 4]
    with pytest.raises(OSError, match="second undo"), RollbackContext() as rollback:
        rollback.defer(undo, 2)
    with RollbackContext() as rollback:
        rollback.defer(undo, 5)
        rollback.clear()
    assert done == [3, 2, 1, 4, 2]


def test_threads_return_in_order_and_the_first_failure_is_raised_when_all_have_ended() -> None:
    assert utils.invoke_in_parallel(pow, [2, 3], [5, 2]) == [32, 9]
    ended: list[int] = []
    targets: list[Callable[[], Any]] = [lambda: 1 / 0, lambda: ended.append(1)]
    threads = VectorThread(targets)
    threads.start_all()
    with pytest.raises(ZeroDivisionError):
        threads.join_all()
    assert ended == [1]


def test_a_command_status_is_true_if_the_command_failed() -> None:
    failed = utils.run_command(["sh", "-c", "echo $NAME; cat >&2; exit 3"], "input", env={"NAME": "value"})
    assert failed == CommandStatus(3, "value\n", "input")
    assert failed
    assert not utils.run_command(["true"])


# Templates


def test_a_template_is_fetched_once_compared_with_its_hash_and_kept(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (root / "old").write_bytes(b"old")
    (root / "new").write_bytes(b"new")
    (root / "new.hash").write_text(f"{hashlib.sha256(b'new').hexdigest()}  new\n")
    (root / "new.metadata").write_text('{"distro": "bookworm"}')
    (root / "old.hash").write_text("0" * 64)
    described = tmp_path / "repo.metadata"
    described.write_text(json.dumps({
        "name": "office", "sources": {"here": {"type": "file", "args": {"root": str(root)}}},
        "templates": {"router": {"versions": {
            version: {"source": "here", "handle": version, "timestamp": time}
            for version, time in (("old", "1"), ("new", "2"), ("../images/../secret", "0"))}}}}))
    repository = TemplateRepository.from_url(str(described))
    template, store = repository.get_by_name("router"), TemplateStore(tmp_path / "store")

    latest = template.get_version()
    assert latest not in store
    store.download(latest)
    os.remove(root / "new")
    store.download(latest)
    assert Path(store.get_path(latest)).read_bytes() == b"new"
    assert store.get_stored_metadata(latest) == {"distro": "bookworm"}

    for version, why in (("old", "does not have the SHA-256"), ("../images/../secret", "is outside")):
        with pytest.raises(TemplateFailed, match=why):
            store.download(template.get_version(version))
    with pytest.raises(TemplateFailed, match="there are old, new"):
        template.get_version("newest")
    with pytest.raises(TemplateFailed, match="office has router"):
        repository.get_by_name("switch")


def test_a_repository_can_be_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "router-v1").write_bytes(b"disk")
    (tmp_path / "router-v1.hash").write_text(hashlib.sha256(b"disk").hexdigest())
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "repo.metadata").write_text(json.dumps({
            "name": "office", "sources": {"web": {"type": "http", "args": {"baseurl": address}}},
            "templates": {"router": {"versions": {"v1": {"source": "web", "handle": "router-v1", "timestamp": "1"}}}}}))
        latest = TemplateRepository.from_url(f"{address}/repo.metadata").get_by_name("router").get_latest_version()
        store = TemplateStore(tmp_path / "store")
        store.download(latest)
        server.shutdown()
    assert Path(store.get_path(latest)).read_bytes() == b"disk"
    assert store.get_stored_metadata(latest) == {}


def test_a_setting_that_is_wrong_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PDIMAGE_LAB_LEASE_DIR", str(tmp_path / "file/leases"))
    with pytest.raises(SystemSetup, match="name another directory in PDIMAGE_LAB_LEASE_DIR"):
        subnet_lease.acquire(uuid_of(tmp_path, "prefix"))
    monkeypatch.setenv("PDIMAGE_LAB_ACCEL", "xen")
    with pytest.raises(SystemSetup, match="set PDIMAGE_LAB_ACCEL to kvm or tcg"):
        acceleration.found(tmp_path / "vmlinux", tmp_path / "initrd")


# What makes a machine


def test_the_seed_of_a_machine_is_an_archive_that_other_programs_read(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring"
    keyring.mkdir(mode=0o700)
    (keyring / "key").write_text("secret")
    (keyring / "key").chmod(0o600)
    mods = [sysprep.set_hostname("router"), sysprep.mount_disks({"opt": "/opt"}),
            sysprep.config_net_interface_static("eth0", "54:52:c0:a8:c8:02", "192.168.200.2/24", "192.168.200.1"),
            sysprep._upload_file(keyring, "/etc/fussy/keys")]
    seed = sysprep.sysprep(tmp_path / "disk", mods)

    subprocess.run(["bsdtar", "-x", "-f", seed, "-C", tmp_path], check=True, timeout=60)
    root = tmp_path / "seed"
    assert (root / "etc/hostname").read_text() == "router\n"
    assert (root / "etc/lab/mounts").read_text() == "opt /opt\n"
    assert (root / "etc/lab/network/eth0").read_text() == "54:52:c0:a8:c8:02 192.168.200.2/24 192.168.200.1\n"
    modes = [(root / path).stat().st_mode & 0o7777 for path in ("etc/fussy/keys", "etc/fussy/keys/key")]
    assert modes == [0o700, 0o600]
    assert os.access(tmp_path / "init", os.X_OK)

    changed = (root / "etc/lab/seed").read_text()
    sysprep.sysprep(tmp_path / "disk", [*mods, sysprep.set_hostname("other")])
    subprocess.run(["bsdtar", "-x", "-f", seed, "-C", tmp_path], check=True, timeout=60)
    assert (root / "etc/hostname").read_text() == "other\n"
    assert (root / "etc/lab/seed").read_text() != changed
