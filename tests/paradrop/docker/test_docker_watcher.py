"""A container that the engine restarts gets its interfaces again."""

import os
import signal
import threading
import time

import pytest
from engine import Router

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.fc.configurer import PDConfigurer

pytestmark = pytest.mark.docker


def test_interfaces_come_back_when_the_engine_restarts_a_container(router: Router) -> None:
    done = threading.Event()
    queue = PDConfigurer(ChuteStorage(), None)
    thread = threading.Thread(target=queue.performUpdates, daemon=True)
    thread.start()
    try:
        queue.updateList(updateClass="CHUTE", updateType="create", name="wired", func=lambda update: done.set(),
                         dockerfile='FROM busybox\nCMD ["sleep", "1000"]\n',
                         net={"lan": {"type": "lan", "intfName": "port0"}})
        assert done.wait(60)
        chute = ChuteStorage().getChute("wired")
        assert chute is not None
        expected = [f"port0 {chute.getCache('networkInterfaces')[0]['ipaddrWithPrefix']}"]
        number = chute.getCache("containers")["main"]
        assert router.addresses(number) == expected
        time.sleep(0.5)  # the watcher begins to listen
        before = router.engine.client.inspect_container(number)["State"]["Pid"]
        os.kill(before, signal.SIGKILL)
        for _ in range(100):
            time.sleep(0.1)
            state = router.engine.client.inspect_container(number)["State"]
            if state["Running"] and state["Pid"] != before and router.addresses(number) == expected:
                break
        assert state["Pid"] != before and router.addresses(number) == expected
    finally:
        queue.stop()
        thread.join(30)
    assert not thread.is_alive()
