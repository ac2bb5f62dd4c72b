"""The attacks on update systems that The Update Framework names, each over real HTTP, each told by its name.

After each of them the router has what it had, and goes on when an honest source answers.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile

from tests.fussy.conftest import Keys

from .router import Router
from .simulator import Repository
from .web import Answer, Server, serving

BIG = 2**31 - 1


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "channel")


@pytest.fixture
def router(tmp_path: Path, keys: Keys, repository: Repository, server: Server) -> Router:
    """A router that has seen the channel."""
    made = Router(tmp_path, keys, repository.metadata / "1.root.json", server.url)
    repository.offer("1.0")
    made.update(check=True, expect="available")
    return made


def attacked(router: Router, *words: str) -> None:
    """The router refuses, with exit code 51, and says these WORDS."""
    done = router.update(check=True, expect="untrusted")
    assert done.exit_code == 51
    assert all(word in done.line for word in words), done.line
    assert router.current() == ""


def well(router: Router, version: str = "") -> None:
    """The router is offered VERSION."""
    done = router.update(check=True, expect="available")
    assert f"version {version}" in done.line


# --- rollback ---------------------------------------------------------------------------------------------------------


def test_rollback_of_the_timestamp(repository: Repository, router: Router) -> None:
    old = repository.path("timestamp").read_bytes()
    repository.offer("2.0")
    well(router, "2.0")
    new = repository.path("timestamp").read_bytes()
    repository.path("timestamp").write_bytes(old)
    attacked(router, "rollback", "timestamp.json")
    repository.path("timestamp").write_bytes(new)
    well(router, "2.0")


def test_rollback_of_the_snapshot_by_who_has_the_timestamp_key(repository: Repository, router: Router) -> None:
    old = Metadata.from_bytes(repository.path("timestamp").read_bytes()).signed.snapshot_meta
    repository.offer("2.0")
    well(router, "2.0")
    repository.signed["timestamp"].version += 1
    repository.signed["timestamp"].snapshot_meta = old
    repository.write("timestamp")
    attacked(router, "rollback")


def test_rollback_of_targets_by_who_has_the_online_keys(repository: Repository, router: Router) -> None:
    repository.offer("2.0")
    well(router, "2.0")
    repository.signed["router"].version -= 1
    repository.publish(bump=("snapshot", "timestamp"))
    attacked(router, "rollback", "snapshot.json")


def test_a_line_that_vanishes_from_the_snapshot(repository: Repository, router: Router) -> None:
    del repository.signed["snapshot"].meta["router.json"]
    repository.signed["snapshot"].version += 1
    data = repository.write("snapshot")
    repository.signed["timestamp"].snapshot_meta = MetaFile(repository.signed["snapshot"].version, len(data))
    repository.signed["timestamp"].version += 1
    repository.write("timestamp")
    attacked(router, "mix-and-match")


@pytest.mark.parametrize("harm", ["lost", "emptied", "garbage", "directory"])
def test_rollback_on_a_router_whose_cache_is_gone(repository: Repository, router: Router, harm: str) -> None:
    """python-tuf remembers versions in its cache alone; ours are kept beside it."""
    shutil.copytree(repository.metadata, repository.metadata.with_name("old"))
    repository.offer("2.0")
    well(router, "2.0")
    cache = router.private / "metadata"
    for file in cache.glob("*.json"):
        if harm == "emptied":
            file.write_bytes(b"")
        elif harm == "garbage":
            file.write_bytes(b'{"signed": {"version": 1')
        elif harm == "directory" and not file.is_symlink():
            file.unlink()
            file.mkdir()
    if harm == "lost":
        shutil.rmtree(cache)
    shutil.copytree(repository.metadata, repository.metadata.with_name("new"))
    shutil.rmtree(repository.metadata)
    repository.metadata.with_name("old").rename(repository.metadata)
    attacked(router, "rollback", "this device has seen")
    shutil.rmtree(repository.metadata)
    repository.metadata.with_name("new").rename(repository.metadata)
    well(router, "2.0")


def test_a_root_that_a_source_hides_from_a_router_without_cache(repository: Repository, router: Router) -> None:
    repository.rotate("timestamp")
    repository.publish(bump=("timestamp",))
    well(router, "1.0")
    shutil.rmtree(router.private / "metadata")
    (repository.metadata / "2.root.json").unlink()
    assert router.update(check=True).exit_code == 51


# --- freeze -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "router", "targets", "root"])
def test_freeze(repository: Repository, router: Router, role: str) -> None:
    repository.signed[role].expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    if role == "root":
        repository.rotate("root")
    repository.publish(bump={"snapshot", "timestamp", role} - {"root"})
    attacked(router, "freeze", "expired", role, "the clock shows 20")
    repository.signed[role].expires = repository.expires
    if role == "root":
        repository.rotate("root")
    repository.publish(bump={"snapshot", "timestamp", role} - {"root"})
    well(router, "1.0")


# --- fast-forward -----------------------------------------------------------------------------------------------------


def test_fast_forward_is_recovered_from_by_new_keys(repository: Repository, router: Router) -> None:
    """A thief of the online keys signs the highest versions, so that honest ones look like a rollback."""
    honest = repository.signed["timestamp"].version, repository.signed["snapshot"].version
    repository.signed["timestamp"].version = repository.signed["snapshot"].version = BIG
    repository.publish(bump=())
    well(router, "1.0")
    repository.signed["timestamp"].version, repository.signed["snapshot"].version = honest
    repository.publish()
    attacked(router, "rollback")
    repository.rotate("timestamp", "snapshot")
    repository.publish()
    well(router, "1.0")
    shutil.rmtree(router.private / "metadata")
    well(router, "1.0")


# --- mix and match ----------------------------------------------------------------------------------------------------


def test_mix_and_match_of_snapshot_and_timestamp(repository: Repository, router: Router) -> None:
    old = repository.path("snapshot").read_bytes()
    repository.offer("2.0")
    repository.path("snapshot").write_bytes(old)
    attacked(router, "mix-and-match", "snapshot.json")


def test_mix_and_match_of_targets_and_snapshot(repository: Repository, router: Router) -> None:
    old = repository.path("router").read_bytes()
    repository.offer("2.0")
    repository.path("router").write_bytes(old)
    attacked(router, "mix-and-match", "router.json")


# --- roots, thresholds, keys ------------------------------------------------------------------------------------------


def test_a_root_that_the_one_before_did_not_sign(repository: Repository, router: Router) -> None:
    repository.signers["root"] = [CryptoSigner.generate_ed25519()]
    root = repository.signed["root"]
    root.revoke_key(root.roles["root"].keyids[0], "root")
    root.add_key(repository.signers["root"][0].public_key, "root")
    root.version += 1
    repository.write("root")
    attacked(router, "2.root.json", "not signed by enough")
    (repository.metadata / "2.root.json").unlink()
    well(router, "1.0")


def test_a_root_that_does_not_sign_itself(repository: Repository, router: Router) -> None:
    old = list(repository.signers["root"])
    repository.rotate("root")
    repository.write("root", old)
    attacked(router, "2.root.json", "not signed by enough")


def test_a_root_that_leaves_a_version_out(repository: Repository, router: Router) -> None:
    repository.rotate("root")
    repository.rotate("root")
    (repository.metadata / "3.root.json").rename(repository.metadata / "2.root.json")
    assert router.update(check=True, expect="untrusted").exit_code == 51
    repository.signed["root"].version = 5
    repository.signers["root"] = repository.signers["root"][:1]
    (repository.metadata / "2.root.json").write_bytes(b"{}")
    attacked(router, "2.root.json is no metadata")


def test_the_wrong_version_in_a_root_that_is_signed(repository: Repository, router: Router) -> None:
    repository.signed["root"].version = 3
    (repository.metadata / "2.root.json").write_bytes(repository.sign("root"))
    attacked(router, "wrong chain of roots")


def test_many_rotations_are_followed(repository: Repository, router: Router, keys: Keys) -> None:
    for roles in (["root"], ["timestamp", "root"], ["snapshot"], ["targets", "root"], ["root"]):
        repository.rotate(*roles)
    repository.publish(bump=("targets", "snapshot", "timestamp"))
    well(router, "1.0")
    newcomer = Router(router.place.parent, keys, repository.metadata / "1.root.json", *router.settings.sources,
                      name="newcomer")
    well(newcomer, "1.0")


def test_a_revoked_key_counts_no_more(repository: Repository, router: Router) -> None:
    thief = list(repository.signers["timestamp"])
    repository.rotate("timestamp")
    repository.publish(bump=("timestamp",))
    well(router, "1.0")
    repository.signed["timestamp"].version += 1
    repository.write("timestamp", thief)
    attacked(router, "timestamp.json", "not signed by enough")


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_fewer_signatures_than_the_threshold(repository: Repository, router: Router, role: str) -> None:
    repository.keys(role, count=3, threshold=2)
    repository.publish(bump=("targets", "snapshot", "timestamp"))
    well(router, "1.0")
    signers = repository.signers[role]
    if role == "root":
        repository.signed["root"].version += 1
        repository.write("root", signers[:1])
    else:
        repository.signers[role] = signers[:1]
        repository.publish(bump=("targets", "snapshot", "timestamp"))
    attacked(router, "not signed by enough")
    if role == "root":
        repository.write("root", signers[1:])
    else:
        repository.signers[role] = signers[1:]
        repository.publish(bump=("targets", "snapshot", "timestamp"))
    well(router, "1.0")


def test_one_key_that_signs_twice_is_one_key(repository: Repository, router: Router) -> None:
    repository.keys("timestamp", count=2, threshold=2)
    first = repository.signers["timestamp"][0]
    repository.signed["timestamp"].version += 1
    text = repository.sign("timestamp", [first]).decode()
    signature = text[text.index('"signatures":[') + 14:text.index("]", text.index('"signatures":['))] \
        if '"signatures":[' in text else ""
    if not signature:
        start = text.index("[", text.index('"signatures"')) + 1
        signature = text[start:text.index("]", start)]
    repository.path("timestamp").write_text(text.replace(signature, f"{signature},{signature}", 1))
    attacked(router, "timestamp.json")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "router"])
def test_arbitrary_keys(repository: Repository, router: Router, role: str) -> None:
    own = repository.signers[role]
    repository.signers[role] = [CryptoSigner.generate_ed25519()]
    repository.publish(bump={"snapshot", "timestamp", role})
    attacked(router, f"{role}.json", "arbitrary software")
    repository.signers[role] = own
    repository.publish(bump={"snapshot", "timestamp", role})
    well(router, "1.0")


def test_one_line_cannot_speak_for_another(repository: Repository, router: Router) -> None:
    """What is outside the paths that were delegated is not looked at."""
    targets = repository.signed["router"].targets
    targets["other/firmware-9.gpg"] = targets.pop("router/firmware-1.0.gpg")
    repository.publish()
    assert router.update(check=True).outcome == "nothing-new"


# --- endless and slow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "router", "2.root"])
def test_endless_metadata(repository: Repository, router: Router, server: Server, name: str) -> None:
    repository.offer("2.0")
    repository.rotate("timestamp")
    repository.publish(bump=("timestamp",))

    def endless(path: str, answer: Answer) -> Answer:
        return Answer(200, b"{", {"Content-Length": ""}, endless=True) if path.endswith(f"{name}.json") else answer

    server.fault = endless
    attacked(router, "endless data", name)
    server.fault = None
    well(router, "2.0")


@pytest.mark.parametrize("how", ["body", "head", "silent"])
def test_slow_retrieval_of_metadata(router: Router, server: Server, how: str) -> None:
    def slow(path: str, answer: Answer) -> Answer:
        if how == "silent":
            server.closing.wait(30)
        return Answer(answer.status, answer.body, answer.headers, drip=0.2 * (how == "body"),
                      head_drip=0.2 * (how == "head"))

    server.fault = slow
    done = router.update(check=True, expect="slow")
    assert done.exit_code == 52
    assert "slow retrieval" in done.line or "in time" in done.line
    server.fault = None
    well(router, "1.0")


def test_slow_retrieval_of_a_bundle(repository: Repository, router: Router, server: Server) -> None:
    repository.offer("2.0", bytes(100_000))
    router.set(server.url, lowest_speed=20_000)
    server.fault = lambda path, answer: Answer(answer.status, answer.body, answer.headers,
                                               drip=0.01 * path.startswith("targets"))
    done = router.update(expect="slow")
    assert done.exit_code == 52
    assert "fewer than 20000" in done.line


# --- what the metadata does not name ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("harm", "word"), [
    ("other content", "wrong hash"), ("longer", "wrong length"), ("shorter", "wrong length"), ("endless", "endless"),
    ("page", "captive portal")])
def test_a_bundle_that_was_not_signed(repository: Repository, router: Router, server: Server, harm: str,
                                      word: str) -> None:
    content = b"a bundle " * 5000
    repository.offer("2.0", content)
    bodies = {"other content": b"A bundle " * 5000, "longer": content + b"!", "shorter": content[:-1],
              "page": b"<html>log in</html>"}

    def wrong(path: str, answer: Answer) -> Answer:
        if not path.startswith("targets"):
            return answer
        if harm == "endless":
            return Answer(200, content, {"Content-Length": ""}, endless=True)
        return Answer(200, bodies[harm])

    server.fault = wrong
    done = router.update()
    assert done.exit_code == (50 if harm == "page" else 51), done.line
    assert word in done.line
    assert router.current() == ""
    assert not [path for path in (router.private / "downloads").iterdir() if path.suffix == ""]


def test_a_mirror_that_lies_is_named_and_passed_over(repository: Repository, router: Router, server: Server,
                                                     tmp_path: Path) -> None:
    repository.offer("2.0")
    shutil.copytree(repository.metadata.parent, tmp_path / "mirror")
    (tmp_path / "mirror/metadata/timestamp.json").write_bytes(repository.sign("timestamp", [
        CryptoSigner.generate_ed25519()]))
    with serving(tmp_path / "mirror") as mirror:
        router.set(mirror.url, server.url)
        done = router.update(check=True, expect="available")
        assert f"not believed: {mirror.url}: metadata/timestamp.json is not signed" in done.line
        assert done.source == server.url
        assert [problem.source for problem in done.problems] == [mirror.url]


# --- what the network does to metadata --------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [False, True], ids=["a new router", "one that found nothing new"])
@pytest.mark.parametrize(("answer", "code", "words"), [
    (Answer(200, b"<!doctype html><p>Log in"), 50, "captive portal"), (Answer(511), 50, "captive portal"),
    (Answer(302, b"", {"Location": "/portal"}), 50, "captive portal"), (Answer(500), 50, "HTTP status 500"),
    (Answer(503), 50, "HTTP status 503"), (Answer(404), 50, "has no metadata/"),
    (Answer(301, b"", {"Location": "/again"}), 50, "redirects more than 5 times"),
    (Answer(200, b"{" * 500, cut=200), 50, "IncompleteRead"), (Answer(200, b"{", {"Content-Length": ""}, cut=1), 51,
                                                               "is no metadata")],
    ids=["portal", "511", "to a portal", "500", "503", "404", "loop", "truncated", "truncated without a length"])
def test_metadata_that_the_network_spoils(repository: Repository, router: Router, server: Server, seen: bool,
                                          answer: Answer, code: int, words: str) -> None:
    if seen:
        repository.signed["router"].targets.clear()
        repository.publish()
        router.update(check=True, expect="nothing-new")

    def spoilt(path: str, honest: Answer) -> Answer:
        if path == "portal":
            return Answer(200, b"<html>log in")
        return Answer(404) if path.endswith(".root.json") else Answer(answer.status, answer.body, {**answer.headers},
                                                                     cut=answer.cut)

    server.fault = spoilt
    done = router.update(check=True)
    assert (done.exit_code, words in done.line) == (code, True), done.line
    server.fault = None
    router.update(check=True, expect="nothing-new" if seen else "available")
