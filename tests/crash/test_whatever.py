"""A property: whatever is published and killed, a device is always on a complete release that was published."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fussy import manifest
from tests.crash.killing import trace
from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys
from tests.fussy.update.router import Router

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"
# System calls that a command is killed at, and about how often an update makes them.
CALLS = {"write": 25, "rename": 12, "openat": 120, "mkdir": 6, "unlink": 8, "symlink": 4, "fchmod": 8, "renameat2": 2}

Kill = tuple[str, int] | None
calls = st.sampled_from(sorted(CALLS)).flatmap(lambda call: st.tuples(st.just(call), st.integers(1, CALLS[call])))
kills = st.one_of(st.none(), calls, calls)
steps = st.one_of(
    st.tuples(st.sampled_from(["good", "bad"]), kills), st.tuples(st.just("update"), kills),
    st.tuples(st.sampled_from(["update", "recover", "rollback", "clean", "failsafe"]), kills),
    st.tuples(st.sampled_from(["withdraw", "lose the cache"]), st.none()))


class World:
    """A channel and a router that follows it. ``published``: the digests of all that was ever on offer."""

    def __init__(self, place: Path, keys: Keys) -> None:
        self.channel = Channel(place, keys)
        self.channel.init()
        self.router = Router(place, keys, self.channel.where.metadata / "1.root.json", self.channel.where.channel)
        self.published: set[str] = set()
        self.count = 0

    def step(self, what: str, kill: Kill) -> None:
        """Do something; KILL is the system call, and the how manieth one, that it is killed at."""
        if what in ("good", "bad"):
            self.count += 1
            tree = self.channel.tree(self.count, {"version": str(self.count), "bin/app": "app" * 999,
                                                  **({".post-install": FAILS} if what == "bad" else {})})
            self.run(["publish", str(self.channel.where.channel), "add", "router", str(tree)], kill)
        elif what == "withdraw":
            if offered := self.channel.json("list")["router"]:
                self.channel("withdraw", "router", offered[0]["release"])
        elif what == "lose the cache":
            shutil.rmtree(self.router.private / "metadata", ignore_errors=True)
        elif what == "update":
            self.published |= {release["digest"] for release in self.channel.json("list")["router"]}
            self.run(self.router.command("--no-delay")[3:], kill)
        else:
            self.run([what, "-t", str(self.router.target)], kill)

    def run(self, command: list[str], kill: Kill) -> None:
        options = ["-e", f"inject={kill[0]}:signal=SIGKILL:when={kill[1]}"] if kill else []
        done = trace(command, "-e", f"trace={kill[0] if kill else 'none'}", *options, "-o", os.devnull)
        assert done.code != 70, done  # a traceback

    def digest(self) -> str:
        """Return the digest of the release in use after checking that it is whole; "" if there is none."""
        if not self.router.current():
            return ""
        return manifest.digest((self.router.target / "current" / os.fsdecode(manifest.PATH)).read_bytes())


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
          suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=4, max_size=8))
def test_a_device_is_always_on_a_complete_release_that_was_published(
        keys: Keys, taken: list[tuple[str, Kill]]) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(keys.home))
        world = World(Path(place), keys)
        for what, kill in [("good", None), ("update", None), *taken]:
            world.step(what, kill)
            assert world.digest() in (world.published or {""}), (what, kill)
        world.step("good", None)
        world.step("update", None)
        assert world.router.current().startswith(f"firmware-{world.count}"), world.router.record.line
