"""The chutes of a release: what is to be done for them, and that it is done on a real engine, there and back."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
from click.testing import CliRunner
from engine import Router

from paradrop.backend.fc import chutestorage, configurer
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.image import applying, chutes, cli, snapshots
from paradrop.image.chutes import Step
from paradrop.lib import descriptor, settings
from paradrop.lib.chutespec import Specification
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import carried, dockerclient
from pdimage import containers
from pdimage.description import ChuteSource

PAGE = """FROM busybox
RUN mkdir -p /www && echo {text} > /www/index.html
STOPSIGNAL SIGKILL
CMD ["sleep", "1000"]
"""


@pytest.mark.parametrize(("release", "done", "there", "steps"), [
    ({}, {}, [], []),
    ({"a": "1"}, {}, [], ["create a"]),
    ({"a": "1"}, {"a": "1"}, ["a"], []),
    ({"a": "2"}, {"a": "1"}, ["a"], ["update a"]),
    ({"a": "1"}, {"a": ""}, ["a"], ["update a"]),
    ({"a": "1"}, {"a": ""}, [], ["create a"]),
    ({}, {"a": "1"}, ["a"], ["delete a"]),
    ({}, {"a": "1"}, [], []),
    ({}, {}, ["mine"], []),
    ({"mine": "1"}, {}, ["mine"], []),
    ({"a": "1"}, {"a": "1"}, [], []),
    ({"a": "2"}, {"a": "1"}, [], ["create a"]),
    ({"a": "2", "b": "1"}, {"a": "1", "c": "1"}, ["a", "c", "mine"], ["delete c", "update a", "create b"]),
], ids=["nothing", "first", "as it was", "changed", "cut short", "cut short before", "left", "left and deleted",
        "user's", "user's under that name", "deleted by its user", "deleted, but changed", "everything"])
def test_what_is_to_be_done(release: dict[str, str], done: dict[str, str], there: list[str], steps: list[str]) -> None:
    assert [f"{step.kind} {step.name}" for step in chutes.decide(release, done, there)] == steps


_names = some.sampled_from("abcd")
_digests = some.dictionaries(_names, some.sampled_from("12"))


@hypothesis.given(_digests, _digests, some.sets(_names))
def test_doing_it_leaves_nothing_to_do_and_spares_what_is_not_ours(
    release: dict[str, str], done: dict[str, str], there: set[str]
) -> None:
    after, left = dict(done), set(there)
    for step in chutes.decide(release, done, there):
        assert step.kind == "create" or step.name in done, "never touch what no release had"
        if step.kind == "delete":
            left.remove(step.name)
            del after[step.name]
        else:
            assert (step.name in left) == (step.kind == "update")
            left.add(step.name)
            after[step.name] = step.digest
    assert chutes.decide(release, after, left) == []
    assert set(release) - set(done) <= left and there - set(done) <= left


def asking(port: int) -> Specification:
    return descriptor.parse({"name": f"port-{port}", "host_config": {"port_bindings": {80: port}}}, complete=False)


def test_what_one_chute_leaves_to_another_is_free_by_then() -> None:
    steps = [Step("update", name) for name in ("aa", "bb", "cc", "dd")]
    now = {"aa": asking(1), "bb": asking(2), "cc": asking(3)}
    wanted = {"aa": asking(2), "bb": asking(3), "cc": asking(4), "dd": asking(9)}
    now = {name: replace(spec, name=name) for name, spec in now.items()}
    wanted = {name: replace(spec, name=name) for name, spec in wanted.items()}
    assert [step.name for step in chutes.ordered(steps, wanted, now)] == ["cc", "bb", "aa", "dd"]
    exchanged = {**wanted, "aa": now["bb"], "bb": now["aa"]}
    assert {step.name for step in chutes.ordered(steps, exchanged, now)} == {"aa", "bb", "cc", "dd"}


@pytest.fixture
def releases(router: Router, monkeypatch: pytest.MonkeyPatch) -> Iterator["Releases"]:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    yield Releases(router)
    chutestorage.ChuteStorage.chuteList = {}


class Releases:
    """Builds releases with chutes, and is the runtime of the one in use."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.home = router.home

    def build(self, name: str, port: int = 9000, **dockerfiles: str) -> Path:
        """Build a release; the engine forgets what it built."""
        sources = []
        for number, (chute, dockerfile) in enumerate(dockerfiles.items()):
            place = self.home / "sources" / name / chute
            place.mkdir(parents=True)
            (place / "Dockerfile").write_text(dockerfile)
            sources.append(ChuteSource(chute, place, config={
                "name": chute, "version": 1, "dockerfile": {"local": "Dockerfile"},
                "host_config": {"port_bindings": {80: port + number}}}))
        release = self.home / "target" / name
        release.mkdir(parents=True)
        containers.install(release, sources, self.home / "cache", self.router.engine.url)
        return release

    def start(self, release: Path) -> None:
        """Be the runtime of a release from its start until it has nothing to do."""
        settings.addSetting("CHUTE_IMAGE_DIR", str(release / "share/oci"))
        ChuteStorage.chuteList = {}
        dockerclient._clients.clear()
        applying.forget()
        snapshots.finish()
        queue = configurer.PDConfigurer(ChuteStorage())
        queue._start_up()
        while (update := queue.getNextUpdate()) is not None:
            configurer.perform(update)

    def page(self, chute: str) -> str:
        """What a running chute has as its page."""
        client = self.router.engine.client
        work = client.exec_create(chute, ["cat", "/www/index.html"])
        return str(client.exec_start(work["Id"]).decode().strip())

    def running(self) -> list[str]:
        return sorted(one["Names"][0][1:] for one in self.router.engine.client.containers())


@pytest.mark.docker
def test_an_upgrade_brings_changes_and_takes_chutes_and_a_fallback_takes_it_all_back(releases: Releases) -> None:
    one = releases.build("v1", web=PAGE.format(text="one"), old=PAGE.format(text="old"))
    two = releases.build("v2", port=9100, web=PAGE.format(text="two"), new=PAGE.format(text="new"))
    releases.router.engine.clear()
    releases.start(one)
    applying.wait(one / "share/chutes", 0)
    assert releases.running() == ["old", "web"] and releases.page("web") == "one"
    releases.router.do("create", name="mine", dockerfile=PAGE.format(text="mine"))
    data = Path(settings.EXTERNAL_DATA_DIR.format(chute="web"), "file")
    data.write_text("of one")

    snapshots.snapshot(one)
    assert releases.running() == [], "their data is whole"
    releases.start(two)
    applying.wait(two / "share/chutes", 0)
    assert releases.running() == ["mine", "new", "web"] and releases.page("web") == "two"
    assert data.read_text() == "of one"
    data.write_text("of two")
    with pytest.raises(ParadropError, match="has not finished"):
        applying.wait(one / "share/chutes", 0)

    snapshots.snapshot(two)
    assert snapshots.restore("v1")
    releases.start(one)
    applying.wait(one / "share/chutes", 0)
    assert releases.running() == ["mine", "old", "web"]
    assert (releases.page("web"), releases.page("old"), data.read_text()) == ("one", "old", "of one")
    snapshots.snapshot(one)
    assert snapshots.restore("v2")
    releases.start(two)
    assert (releases.running(), releases.page("web"), data.read_text()) == (["mine", "new", "web"], "two", "of two")


@pytest.mark.docker
def test_a_release_whose_chute_does_not_come_up_says_so_and_goes_back_as_one(releases: Releases) -> None:
    one = releases.build("v1", web=PAGE.format(text="one"), other=PAGE.format(text="other one"))
    bad = releases.build("v2", web="FROM busybox\nCMD [\"false\"]\n", other=PAGE.format(text="other two"))
    releases.router.engine.clear()
    releases.start(one)
    before = releases.router.state()
    snapshots.snapshot(one)
    releases.start(bad)
    assert releases.page("other") == "other two"
    run = CliRunner().invoke(cli.main, ["apply", str(bad), "--timeout", "0"])
    assert run.exit_code == 1
    assert run.stderr.startswith("paradrop-image apply: cannot run all chutes of the release: web: cannot start web")
    assert snapshots.restore("v1")
    releases.start(one)
    applying.wait(one / "share/chutes", 0)
    after = releases.router.state()
    for state in (before, after):  # containers are made anew where the old ones are gone
        state["containers"] = {name: (status, image) for name, (_, status, image) in state["containers"].items()}
        state.pop("disk")
        for chute in state["store"].values():
            chute["cache"].pop("containers")
    assert after["containers"] == before["containers"] and after["files"] == before["files"]
    assert after["links"] == before["links"] and after["rules"] == before["rules"]
    assert releases.page("other") == "other one"


@pytest.mark.docker
def test_a_port_may_go_from_one_chute_to_another(releases: Releases) -> None:
    one = releases.build("v1", port=9000, aa=PAGE.format(text="a"), bb=PAGE.format(text="b"))
    two = releases.build("v2", port=9001, aa=PAGE.format(text="a"), bb=PAGE.format(text="b"))
    releases.start(one)
    releases.start(two)
    applying.wait(two / "share/chutes", 0)
    assert releases.running() == ["aa", "bb"]


@pytest.mark.docker
def test_starting_again_does_nothing_and_what_was_cut_short_is_done(releases: Releases) -> None:
    one = releases.build("v1", web=PAGE.format(text="one"), dns=PAGE.format(text="dns"))
    releases.router.engine.clear()
    releases.start(one)
    before = releases.router.engine.client.inspect_container("web")["State"]["StartedAt"]
    releases.start(one)
    assert releases.router.engine.client.inspect_container("web")["State"]["StartedAt"] == before
    chutes.remember("web", "")  # as a kill amid its update would leave it
    releases.start(one)
    assert chutes.done()["web"] and releases.page("web") == "one"
    releases.router.do("delete", name="dns")
    releases.start(one)
    assert releases.running() == ["web"], "its user does not want it"


@pytest.mark.docker
def test_images_are_loaded_before_the_swap_and_only_once(releases: Releases) -> None:
    one = releases.build("v1", web=PAGE.format(text="one"))
    releases.router.engine.clear()
    (image,) = carried.images(one / "share/oci")
    run = CliRunner().invoke(cli.main, ["load", str(one)])
    assert run.exit_code == 0 and f"{image.reference} is loaded" in run.stdout
    assert releases.router.engine.client.inspect_image(image.image_id)
    assert CliRunner().invoke(cli.main, ["load", str(one)]).stdout == ""
    settings.addSetting("DOCKER_HOST", "unix:///nowhere/docker.sock")
    run = CliRunner().invoke(cli.main, ["load", str(one)])
    assert run.exit_code == 1 and "no Docker engine answers" in run.stderr


@pytest.mark.docker
def test_a_chute_that_was_not_built_is_built_by_the_router(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_connect", lambda engine: None)
    one = releases.build("v1", web=PAGE.format(text="built here"))
    releases.start(one)
    applying.wait(one / "share/chutes", 0)
    assert releases.page("web") == "built here"


def test_a_damaged_release_or_memory_is_told(home: Path) -> None:
    settings.addSetting("CHUTE_IMAGE_DIR", str(home / "share/oci"))
    ChuteStorage.chuteList = {}

    def outcome() -> dict[str, Any]:
        assert applying.Start(ChuteStorage()).updates([]) == []
        with pytest.raises(ParadropError) as failed:
            applying.wait(home / "share/chutes", 0)
        return {"said": str(failed.value)}

    chute = home / "share/chutes/web/chute.json"
    chute.parent.mkdir(parents=True)
    chute.write_text("{}")
    assert "cannot read" in outcome()["said"] and "install the release again" in outcome()["said"]
    shutil.rmtree(home / "share/chutes")
    (home / "lib").mkdir(exist_ok=True)
    (home / "lib/release-chutes").write_text(json.dumps([1]))
    assert "delete it" in outcome()["said"]
