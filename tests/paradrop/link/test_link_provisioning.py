"""How a router comes to belong to a server: what it keeps, what is refused, and what a kill leaves."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from face import PASSWORD, Router
from firmwareplaces import place_firmware
from registrystub import SECRET, Authority, Registry, answering

from fussy import keys
from fussy.updating import settings as owners
from paradrop.backend.fc import factory
from paradrop.backend.link import provisioning
from paradrop.backend.link.provisioning import Order
from paradrop.backend.pdfcd.identity import Identity, IdentityFile, given_file
from paradrop.backend.pdfcd.server import begin_link
from tests.crash.killing import kill_at, points

CHANNEL = {"url": "https://updates.example.org/channel", "root": "{}", "product": "router"}
HAWKBIT = {"url": "https://registry.example.org", "tenant": "joe", "name": "aardvark", "token": "t0ken"}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with answering(Registry(Authority())) as found:
        yield found


def order(face: Router, registry: Registry, code: int = 200, user: str | None = None, **more: Any) -> dict[str, Any]:
    """Send the command's order to the router; return its answer."""
    answer = face.ask("POST", "/api/v1/provision", {"server": registry.url, "secret": SECRET, **more}, user)
    assert answer.status == code, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def who(face: Router, user: str | None = "root") -> dict[str, Any]:
    token = {"Authorization": f"Bearer {face.rest.accounts._local}"}
    found: dict[str, Any] = json.loads(face.ask("GET", "/api/v1/identity", user=None, headers=token).data)
    return found


def everything(home: Path) -> dict[str, bytes]:
    """What lasts of a router, but for the key pair of a request under way."""
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*"))
            if path.is_file() and path.name != "asking.json" and "run" not in path.relative_to(home).parts}


def may_sign(home: Path) -> set[str]:
    return {entry.key.fingerprint for entry in keys.list_keyring(home / "fussy/keys") if entry.may_sign}


def test_a_router_gets_all_it_needs_and_forgets_it_again(face: Router, registry: Registry, home: Path) -> None:
    build = home / "build"
    signer = keys.make_signing_key(build, "Server <server@example.org>").fingerprint
    own = keys.make_signing_key(build, "Maker <maker@example.org>").fingerprint
    keys.device_keyring(home / "fussy/keys", [keys.export(build, own)], "router")
    registry.more = {"keyring": [keys.export(build, signer)], "signers": [signer], "channel": CHANNEL,
                     "hawkbit": HAWKBIT}
    told = order(face, registry)
    assert (told["pdid"], told["server"], told["notes"]) == ("pd.joe.aardvark", registry.url, [])
    (asked,) = registry.asked
    assert asked.keys() == {"secret", "csr", "machine", "clock"}
    assert (asked["secret"], len(asked["machine"])) == (SECRET, 64)
    assert abs(asked["clock"] - time.time()) < 60

    identity = IdentityFile().identity
    assert identity is not None
    assert identity.asked == hashlib.sha256(SECRET.encode()).hexdigest()
    assert "PRIVATE KEY" in identity.key and "PRIVATE" not in json.dumps(asked), "the key never leaves the router"
    public = x509.load_pem_x509_csr(asked["csr"].encode()).public_key()
    assert x509.load_pem_x509_certificate(identity.certificate.encode()).public_key() == public
    assert may_sign(home) == {signer, own}
    assert (home / "fussy/keys/root.json").read_text() == "{}"
    updater = owners.load(home / "fussy/update.toml")
    assert (updater.sources, updater.product) == ([CHANNEL["url"]], "router")
    assert updater.hawkbit is not None
    assert (updater.hawkbit.url, updater.hawkbit.tenant, updater.hawkbit.name) == (HAWKBIT["url"], "joe", "aardvark")
    assert Path(updater.authority).read_text() == f"{identity.cert}\n"
    token = Path(updater.hawkbit.token_file)
    assert (token.read_text(), token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (
        "t0ken", 0o600, 0o700)

    local = {"Authorization": f"Bearer {face.rest.accounts._local}"}
    assert face.ask("DELETE", "/api/v1/identity", user=None, headers=local).status == 204
    assert who(face) == {"pdid": None, "server": None, "state": "off", "since": who(face)["since"],
                         "line": "This router belongs to no server."}
    assert may_sign(home) == {own}
    assert not (home / "fussy/update.toml").exists() and not list((home / "lib/keys").iterdir())
    assert face.ask("DELETE", "/api/v1/identity", user=None, headers=local).status == 404


def test_what_the_owner_wrote_stays(face: Router, registry: Registry, home: Path) -> None:
    own = 'mode = "notify"\nsources = ["/media/*/channel"]\nproduct = "mine"\n\n[on_demand]\nserver = ""'
    (home / "fussy").mkdir()
    (home / "fussy/update.toml").write_text(own)
    registry.more = {"channel": CHANNEL, "hawkbit": HAWKBIT}
    assert order(face, registry)["notes"] == ["the updater goes on with the channel that its settings name"]
    found = (home / "fussy/update.toml").read_text()
    assert found.startswith(own) and tomllib.loads(found)["hawkbit"]["name"] == "aardvark"
    assert not (home / "fussy/keys").exists()
    provisioning.forget()
    assert (home / "fussy/update.toml").read_text() == own + "\n"
    (home / "fussy/update.toml").write_text("mode = ")
    before = everything(home)
    assert "cannot read" in order(face, registry, 409)["detail"]
    assert everything(home) == before


def test_a_factory_reset_takes_back_what_the_server_gave(face: Router, registry: Registry, home: Path) -> None:
    (home / "fussy").mkdir()
    (home / "fussy/update.toml").write_text('mode = "notify"\n')
    registry.more = {"channel": CHANNEL, "hawkbit": HAWKBIT}
    order(face, registry)
    factory.decide([])
    assert factory.finish()
    assert (home / "fussy/update.toml").read_text() == 'mode = "notify"\n'
    assert IdentityFile().identity is None and not (home / "lib/keys/update-token").exists()


def test_a_keyring_of_the_firmware_is_the_firmwares(face: Router, registry: Registry, home: Path) -> None:
    (home / "firmware/release/keys").mkdir(parents=True)
    (home / "fussy").mkdir()
    (home / "fussy/keys").symlink_to(home / "firmware/release/keys")
    registry.more = {"keyring": ["is not even read"], "signers": []}
    assert order(face, registry)["notes"] == ["bundles are verified by the keys of the firmware, as before"]
    assert list((home / "firmware/release/keys").iterdir()) == []


def test_who_may_provision(face: Router, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    far = {"X-Real-IP": "198.51.100.7"}
    body = {"server": registry.url, "secret": SECRET}
    assert face.ask("POST", "/api/v1/provision", body, None, far).status == 401
    assert face.ask("POST", "/api/v1/provision", body, None, {"Host": "evil.example"}).status == 403
    assert face.ask("POST", "/api/v1/provision", body, None, {"Origin": "http://evil.example"}).status == 403
    for name in ("admin", "operator"):
        face.rest.accounts.set_user(name, PASSWORD, name)
    assert face.ask("POST", "/api/v1/provision", body, None).status == 401, "somebody has an account"
    assert face.ask("POST", "/api/v1/provision", body, "operator").status == 403
    assert registry.asked == []
    assert face.ask("POST", "/api/v1/provision", body, "admin", far).status == 200


def test_a_router_that_is_provisioned(face: Router, registry: Registry) -> None:
    first = order(face, registry)
    identity = IdentityFile().identity
    assert order(face, registry)["pdid"] == first["pdid"], "the same secret: the answer may have been lost"
    assert len(registry.asked) == 1
    registry.more = {"pdid": "pd.ann.zebra"}
    refused = order(face, registry, 409, secret="another")
    assert refused["detail"].startswith("cannot provision: this router is pd.joe.aardvark already")
    order(face, registry, 401, secret="another", again=True)
    assert (IdentityFile().identity, len(registry.asked)) == (identity, 1)
    face.rest.accounts.set_user("admin", PASSWORD, "admin")
    assert order(face, registry, user="admin", secret="another", again=True)["pdid"] == "pd.ann.zebra"
    assert registry.asked[-1]["again"] is True
    assert registry.asked[-1]["csr"] != registry.asked[0]["csr"]


@pytest.mark.parametrize(("status", "text"), [
    (403, "this secret has expired; make another one: paradrop router-provision"),
    (409, "pd.joe.aardvark is provisioned already; say --again"), (502, ""),
])
def test_what_the_server_refuses_is_told(face: Router, registry: Registry, home: Path, status: int, text: str) -> None:
    before = everything(home)
    registry.refuse = (status, text)
    assert order(face, registry, 409)["detail"] == f"cannot provision: {text or 'the server answers with status 502'}"
    assert everything(home) == before
    registry.refuse = None
    order(face, registry)
    first, second = (x509.load_pem_x509_csr(one["csr"].encode()).public_key() for one in registry.asked)
    assert first == second, "a request that is repeated has the same key"


@pytest.mark.parametrize(("more", "text"), [
    ({"pdid": "pds.production"}, "is not pd.<user>.<router>"), ({"certificate": "none"}, "not for this router's key"),
    ({"authority": "none"}, "the server's authority is not a certificate"),
    ({"keyring": ["no key"]}, "not one OpenPGP public key"), ({"server": "ftp://x"}, "is not the address of a server"),
    ({"pdid": None}, "is not a server of routers"),
    ({"hawkbit": {**HAWKBIT, "url": "x"}}, "with what the server gives: hawkbit: url: 'x' is not"),
])
def test_answers_that_make_no_sense(face: Router, registry: Registry, home: Path, more: dict[str, Any], text: str,
                                    ) -> None:
    before = everything(home)
    registry.more = more
    detail = order(face, registry, 409)["detail"]
    assert text in detail and "\n" not in detail
    assert everything(home) == before


def test_a_signer_that_the_server_does_not_name(face: Router, registry: Registry, home: Path) -> None:
    stranger = keys.make_signing_key(home / "build", "Stranger <s@example.org>").fingerprint
    registry.more = {"keyring": [keys.export(home / "build", stranger)], "signers": ["0" * 40]}
    assert order(face, registry, 409)["detail"].endswith(f"gives the key {stranger}, which is not to sign")
    assert not (home / "fussy/keys").exists()


def test_clocks_that_are_far_off(face: Router, registry: Registry, home: Path) -> None:
    before = everything(home)
    for year, shown in ((2100, "2100-01-02"), (1970, "1970-01-02")):
        registry.date = datetime(year, 1, 2, tzinfo=UTC).timestamp()
        detail = order(face, registry, 409)["detail"]
        assert detail.startswith("cannot provision: this router's clock shows 20") and f"the server's {shown}" in detail
        assert detail.endswith("set the clock and try again")
        assert everything(home) == before
    registry.date = None
    order(face, registry)


def test_certificates_of_the_server(face: Router, home: Path) -> None:
    authority = Authority()
    file, text = authority.server(home)
    other = authority.server(home)[1]
    with answering(Registry(authority), file) as registry:
        unknown = order(face, registry, 409)["detail"]
        assert "localhost cannot be believed: nobody vouches for its certificate" in unknown
        wrong = order(face, registry, 409, server_certificate=other)["detail"]
        assert wrong.endswith("it shows another certificate than the one that was to be expected")
        assert "is not a certificate" in order(face, registry, 409, server_certificate="x")["detail"]
        assert registry.asked == []
        registry.more = {"channel": CHANNEL}
        order(face, registry, server_certificate=text)
        updater = owners.load(home / "fussy/update.toml")
        identity = IdentityFile().identity
        assert identity is not None and identity.pinned == text
        assert Path(updater.authority).read_text() == f"{identity.cert}\n{text}"


def test_a_certificate_that_the_clock_does_not_believe(home: Path) -> None:
    """A router in 2100 that has no pinned certificate: an authority of the system vouches for one until 2090."""
    authority = Authority()
    authority_file = home / "authority.pem"
    authority_file.write_text(authority.certificate)
    file, _ = authority.server(home)
    place_firmware(home)
    program = ("import paradrop.backend.link.provisioning as p, paradrop.lib.settings as s, sys\n"
               "s.updateSettings()\ntry: p.provision(p.Order(sys.argv[1], 'secret'))\n"
               "except Exception as error: print(error)")
    with answering(Registry(authority), file) as registry:
        done = subprocess.run(["faketime", "2100-01-01", sys.executable, "-c", program, registry.url], text=True,
                              capture_output=True, timeout=60, env={
                                  **os.environ, "SSL_CERT_FILE": str(authority_file), "TZ": "UTC",
                                  "CONFIG_HOME_DIR": str(home / "lib"), "FIRMWARE_SETTINGS": str(home / "none")})
    assert done.stdout.strip().endswith("its certificate has expired by this router's clock, which shows "
                                        "2100-01-01 00:00Z; one of them is wrong"), done.stdout + done.stderr
    assert registry.asked == []


def test_a_server_that_is_not_there(face: Router, registry: Registry, home: Path) -> None:
    before = everything(home)
    registry.url = "http://127.0.0.1:1"
    assert order(face, registry, 409)["detail"] == "cannot provision: 127.0.0.1 cannot be reached: Connection refused"
    registry.url = "https://[::1"
    assert "is not the address of a server" in order(face, registry, 409)["detail"]
    assert everything(home) == before


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_killed_at_each_write_it_is_as_before_or_complete(home: Path, registry: Registry) -> None:
    """The settings and the identity; the keyring has its own test (tests/fussy/test_signers.py)."""
    place_firmware(home)
    (home / "fussy").mkdir()
    (home / "fussy/update.toml").write_text('mode = "notify"\n')
    registry.more = {"channel": CHANNEL, "hawkbit": HAWKBIT}
    place, template = home / "lib", home.parent / "template"
    shutil.copytree(home, template)

    def work() -> None:
        provisioning.provision(Order(registry.url, SECRET))

    def reset() -> None:
        shutil.rmtree(home)
        shutil.copytree(template, home)

    found = points(work, home, home.parent / "trace")
    assert len(found) > 15
    kept = 0
    before = everything(template)
    for point in found:
        reset()
        assert kill_at(work, point), point.text
        killed = everything(home)
        if given_file().exists():
            provisioning.finish()  # what the daemon's next start does
        identity = IdentityFile().identity
        if identity is None:
            assert {name: content for name, content in killed.items() if not name.endswith("~")} == before, point.text
        else:
            assert owners.load(home / "fussy/update.toml").product == "router", point.text
            assert not (place / "keys/given.json").exists()
        kept += identity is not None
        work()
        assert owners.load(home / "fussy/update.toml").mode == "notify"
        assert (IdentityFile().identity or Identity("", "", "")).pdid == "pd.joe.aardvark"
        assert sorted(path.name for path in (place / "keys").iterdir()) == [
            "authority.pem", "identity.json", "server.pem", "update-token"], point.text
    assert 5 < kept < len(found)


def test_what_cannot_be_written_is_told_and_made_good(face: Router, registry: Registry, home: Path) -> None:
    registry.more = {"hawkbit": HAWKBIT}
    (home / "fussy").write_text("is in the way")
    detail = order(face, registry, 409)["detail"]
    assert detail == f"cannot read {home}/fussy/update.toml: Not a directory"
    (home / "fussy").unlink()
    (home / "fussy/update.toml/.update.toml.new").mkdir(parents=True)
    (home / "fussy/update.toml").rename(home / "fussy/aside")
    (home / "fussy/aside/.update.toml.new").rename(home / "fussy/.update.toml.new")
    detail = order(face, registry, 409)["detail"]
    assert detail.startswith("cannot keep what the server has given: Is a directory") and "\n" not in detail
    assert who(face)["pdid"] is None and given_file().exists()
    begin_link(face.rest.link)
    assert who(face)["pdid"] is None and given_file().exists(), "the daemon starts all the same"
    (home / "fussy/.update.toml.new").rmdir()
    begin_link(face.rest.link)
    assert who(face)["pdid"] == "pd.joe.aardvark" and not given_file().exists()
    assert order(face, registry)["pdid"] == "pd.joe.aardvark"
    assert len(registry.asked) == 2, "the server's answer was kept"
