"""Several routers follow one channel: a release reaches some of them first, and a bad one is stopped."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pdimage.lab import utils
from pdimage.lab.machine import VM
from pdimage.lab.prefix import Prefix

from .conftest import Factory
from .test_upgrades import UPDATE, motd

pytestmark = [pytest.mark.lab("fleet.yaml"), pytest.mark.slow]

NOT_YET, REVERTED = 11, 3
# This one never comes up.
BAD = [{"name": "page", "command": ["/bin/false"], "seconds": 1}]


@pytest.fixture(scope="module")
def lab_configure(factory: Factory) -> Callable[[dict[str, Any]], object]:
    """These routers follow a product line of their own: what is published here is nothing to those of other tests."""
    return partial(factory.equip, product="fleet")


def version(router: VM) -> str:
    return router.run("cat /etc/motd").split()[-1]


def look(routers: list[VM]) -> list[tuple[int, str]]:
    """Let routers look for an update; return the exit code and the version in use of each."""
    def one(router: VM) -> tuple[int, str]:
        return router.ssh(UPDATE, show_output=False, seconds=900).code, version(router)

    return utils.invoke_in_parallel(one, routers)


def test_a_gradual_roll_out_reaches_more_and_more_and_a_bad_release_is_stopped(lab: Prefix, factory: Factory) -> None:
    routers = list(lab.virt_env.get_vms().values())
    factory.publish("fleet", "11", motd("11"))
    assert look(routers) == [(0, "11")] * 4

    # which half is decided by what each router is, and does not change; at 100 the others follow
    factory.publish("fleet", "12", motd("12"), "--percent", "50")
    assert set(look(routers)) <= {(0, "12"), (NOT_YET, "11")}
    waiting = [router for router in routers if version(router) == "11"]
    assert look(waiting) == [(NOT_YET, "11")] * len(waiting)
    factory.channel("rollout", "fleet", "fleet-12", "100")
    assert look(waiting) == [(0, "12")] * len(waiting)

    # two get the bad release and go back by themselves; then it is stopped for all
    factory.publish("fleet", "13", motd("13"), health=BAD)
    assert look(routers[:2]) == [(REVERTED, "12")] * 2
    factory.channel("withdraw", "fleet", "fleet-13")
    assert look(routers) == [(0, "12")] * 4
