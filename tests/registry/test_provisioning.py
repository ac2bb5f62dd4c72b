"""A device becomes a router: once, with what it needs, and whatever is wrong is one clear line that changes nothing."""

import base64
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fussy import keys
from tests.registry.certificates import self_signed
from tests.registry.conftest import AMPLE, SMALL, Person, database, register
from tests.registry.devices import Device, secret_for
from tests.server.conftest import Start
from tests.server.parts import free_port
from tests.server.serverprocess import Server, wait_until


def test_a_device_gets_all_that_it_needs(start: Start, tmp_path: Path) -> None:
    made = keys.make_signing_key(tmp_path / "home", "Releases <releases@example.org>")
    (tmp_path / "keyring.asc").write_text("For routers:\n" + keys.export(tmp_path / "home", made.fingerprint))
    (tmp_path / "root.json").write_text('{"signed": {}}')
    server = start("--no-worker", **SMALL, **self_signed(tmp_path / "tls"), url="https://registry.example.org/",
                   router_keyring=str(tmp_path / "keyring.asc"), channel="https://updates.example.org/channel",
                   channel_root=str(tmp_path / "root.json"), channel_product="router")
    server.trust(tmp_path / "tls/certificate.pem")
    joe, device = register(server, "joesmith"), Device()
    joe.post("/routers", {"name": "aardvark"})
    issued = joe.post("/routers/aardvark/provision").body
    assert issued["pdid"] == "pd.joesmith.aardvark"
    assert issued["server"] == "https://registry.example.org"
    assert issued["server_certificate"] == (tmp_path / "tls/certificate.pem").read_text()
    assert 895 < issued["expires"] - time.time() <= 900
    found = device.provision(server, issued["secret"]).body
    assert found["pdid"] == "pd.joesmith.aardvark"
    assert found["signers"] == [made.fingerprint]
    assert found["keyring"] == [keys.export(tmp_path / "home", made.fingerprint)]
    assert found["channel"] == {"url": "https://updates.example.org/channel", "root": '{"signed": {}}',
                                "product": "router"}
    token = found["hawkbit"].pop("token")
    assert found["hawkbit"] == {"url": "https://registry.example.org", "tenant": "joesmith", "name": "aardvark"}
    assert len(token) == 32
    own, authority = (x509.load_pem_x509_certificate(found[name].encode()) for name in ("certificate", "authority"))
    assert own.public_key() == device.key.public_key()
    own.verify_directly_issued_by(authority)
    for name in ("certificate", "authority"):
        (tmp_path / name).write_text(found[name])
    subprocess.run(["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "authority",
                    "certificate"], check=True, timeout=30, cwd=tmp_path)
    kept = server.data / "registry/authority.pem"
    assert (oct(kept.stat().st_mode), oct(kept.parent.stat().st_mode)) == ("0o100600", "0o40700")


def test_a_secret_counts_once_but_for_the_same_key_until_the_first_link(joe: Person) -> None:
    secret, device = secret_for(joe, "aardvark"), Device()
    first, second = device.provision(joe.server, secret), device.provision(joe.server, secret)
    assert first.body["certificate"] == second.body["certificate"]
    assert first.body["hawkbit"]["token"] != second.body["hawkbit"]["token"]
    other = Device().provision(joe.server, secret)
    assert (other.status, other.body["error"]) == (
        403, f"this secret was used already, for pd.{joe.name}.aardvark; get another one")
    assert [entry["action"] for entry in joe.get("/audit").body["entries"]][:2] == ["router.provisioned",
                                                                                  "router.provision"]
    with database(joe.server) as connection:
        connection.execute(sa.text("UPDATE routers SET seen = 1 WHERE pdid = :pdid"), {"pdid": first.body["pdid"]})
    assert device.provision(joe.server, secret).status == 403


def test_what_is_provisioned_must_be_provisioned_again_on_purpose(joe: Person) -> None:
    old, new = Device(), Device()
    first = old.provision(joe.server, secret_for(joe, "aardvark")).body
    secret = secret_for(joe, "aardvark")
    refused = new.provision(joe.server, secret)
    assert (refused.status, refused.body["state"]) == (409, "provisioned")
    assert refused.body["error"].startswith(f"pd.{joe.name}.aardvark is provisioned already, since 20")
    assert joe.get("/routers/aardvark").body["provisioned"] is not None
    second = new.provision(joe.server, secret, again=True).body
    assert second["certificate"] != first["certificate"]


def test_a_device_of_somebody(joe: Person) -> None:
    """It is a router already, of the same account or of another one: it ends to be that only if it is meant to."""
    device = Device()
    assert device.provision(joe.server, secret_for(joe, "aardvark")).status == 200
    secret = secret_for(joe, "zebra")
    refused = device.provision(joe.server, secret)
    assert (refused.status, refused.body["error"]) == (
        409, f"this device is provisioned already, as pd.{joe.name}.aardvark; to make it pd.{joe.name}.zebra, "
             "provision again (--again)")
    assert device.provision(joe.server, secret, again=True).status == 200
    left = joe.get("/routers/aardvark").body
    assert (left["provisioned"], left["incident"]) == (
        None, f"the device was provisioned again, as pd.{joe.name}.zebra")
    assert [joe.ask("DELETE", "/routers/aardvark/incident").status for _ in range(2)] == [204, 204]
    assert joe.get("/routers/aardvark").body["incident"] == ""
    noted = [entry for entry in joe.get("/audit").body["entries"] if entry["action"] == "router.clear"]
    assert [(entry["who"], entry["text"]) for entry in noted] == [(joe.name, left["incident"])]
    ann = register(joe.server, joe.name.replace("joe", "ann"))
    secret = secret_for(ann, "tiger")
    refused = device.provision(joe.server, secret)
    assert "this device is provisioned already, by another account;" in refused.body["error"]
    assert joe.name not in refused.body["error"]
    assert device.provision(joe.server, secret, again=True).status == 200
    told = joe.get("/routers/zebra").body
    assert told["incident"] == "the device was provisioned again, as a router of another account"
    assert told["provisioned"] is not None
    assert "ann" not in str(joe.get("/audit").body)


def test_an_expired_secret_and_one_that_was_replaced(start: Start) -> None:
    joe, device = register(start("--no-worker", **SMALL, secret_seconds=0.2), "joesmith"), Device()
    replaced, secret = secret_for(joe, "aardvark"), secret_for(joe, "aardvark")
    time.sleep(0.3)
    late = device.provision(joe.server, secret)
    assert late.status == 403
    assert re.fullmatch(r"this secret expired \d+ seconds? ago; get another one", late.body["error"])
    assert device.provision(joe.server, replaced).body["error"] == \
        "this secret is not known (any more); get another one"
    assert joe.get("/routers/aardvark").body["provisioned"] is None


def test_settings_that_name_what_cannot_be_used(start: Start, tmp_path: Path) -> None:
    keyring, root = tmp_path / "keyring.asc", tmp_path / "root.json"
    keyring.write_text("here should be keys")
    server = start("--no-worker", **SMALL, channel="https://updates.example.org/channel", channel_root=str(root),
                   router_keyring=str(keyring))
    joe, device = register(server, "joesmith"), Device()
    secret = secret_for(joe, "aardvark")

    def said() -> str:
        refused = device.provision(server, secret)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "60")
        return str(refused.body["error"])

    assert said() == (f"the server can't use what its setting router_keyring names, {keyring}: it has no key in ASCII "
                      "armour; tell who runs it")
    made = keys.make_signing_key(tmp_path / "home", "Releases <releases@example.org>")
    keyring.write_text(keys.export(tmp_path / "home", made.fingerprint))
    os.utime(keyring, (1, 1))
    assert said() == (f"the server can't use what its setting channel_root names, {root}: No such file or directory; "
                      "tell who runs it")
    assert joe.get("/routers/aardvark").body["provisioned"] is None
    root.write_text("{}")
    assert device.provision(server, secret).body["signers"] == [made.fingerprint]


@pytest.mark.parametrize(("off", "said"), [
    (-86400 * 365 * 10, "the device's clock is off by 3650 days: it says 20"),
    (3660, "the device's clock is off by 1 hour: it says 20"),
    (1e300, "the device's clock is off by more than 1000 years: it says 1e+300, and it is 20")],
    ids=["behind", "ahead", "absurd"])
def test_a_clock_far_off(joe: Person, off: float, said: str) -> None:
    secret, device = secret_for(joe, "aardvark"), Device()
    refused = device.provision(joe.server, secret, clock=time.time() + off)
    assert (refused.status, refused.body["state"]) == (409, "clock")
    assert refused.body["error"].startswith(said)
    assert abs(refused.body["time"] - time.time()) < 60
    assert device.provision(joe.server, secret, clock=time.time() - 500).status == 200


def test_requests_that_prove_nothing(joe: Person) -> None:
    secret, device = secret_for(joe, "aardvark"), Device()
    good = x509.load_pem_x509_csr(device.csr.encode()).public_bytes(Encoding.DER)
    forged = good[:-64] + bytes(64)
    name = x509.Name([])
    weak = x509.CertificateSigningRequestBuilder(name).sign(rsa.generate_private_key(65537, 2048), SHA256())
    for csr, said in ((pem(forged), "csr is not signed with the key in it"),
                      (weak.public_bytes(Encoding.PEM).decode(), "the key of csr must be of Ed25519"),
                      ("hello", "csr is no request for a certificate"),
                      (pem(good[:40]), "csr is no request for a certificate")):
        refused = device.provision(joe.server, secret, csr=csr)
        assert (refused.status, said in refused.body["error"]) == (400, True), refused.body
    assert device.provision(joe.server, secret, machine="../../etc").status == 400
    assert device.provision(joe.server, secret).status == 200


class Killable(Server):
    """A server that is started again whenever it is killed."""

    program = "tests.registry.killing"


@pytest.mark.slow
def test_a_server_that_is_killed_at_any_moment_has_done_all_or_nothing(
    tmp_path: Path, store: dict[str, object],
) -> None:
    """Whenever it happens, the device asks again with the same secret and key, and is the router, once."""
    server = Killable(tmp_path / "data", {**AMPLE, **store, "listen": f"127.0.0.1:{free_port()}"}).start()
    try:
        joe, done, moment = register(server, "joesmith"), [], 0
        while True:
            moment += 1
            name, device = f"moment{moment}", Device()
            secret = secret_for(joe, name)
            (tmp_path / "kill-at").write_text(str(moment))
            try:
                assert device.provision(server, secret).status == 200
                break
            except urllib3.exceptions.HTTPError:
                wait_until(lambda: answers(server))
            before = joe.get(f"/routers/{name}").body["provisioned"]
            done.append(before is not None)
            found = device.provision(server, secret)
            assert (found.status, found.body["pdid"]) == (200, f"pd.joesmith.{name}")
            if before is not None:
                assert joe.get(f"/routers/{name}").body["provisioned"] == before
        assert done == [False] * (len(done) - 1) + [True]
        assert len(done) >= 7
    finally:
        server.close()


def answers(server: Server) -> bool:
    try:
        return server.get("/health/live").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_a_damaged_authority_is_told_and_not_made_anew(start: Start) -> None:
    server = start("--no-worker")
    server.close()
    file = server.data / "registry/authority.pem"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(AssertionError, match=r"cannot use the registry's authority .*; restore it from a backup"):
        server.start("--no-worker")
    assert file.stat().st_size == 300


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"
