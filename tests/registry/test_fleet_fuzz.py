"""hawkBit's API is fuzzed as its OpenAPI document describes it, by a device that is there and has an action."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.registry.conftest import AMPLE, register
from tests.registry.fleets import begin, make_devices, put_file
from tests.server.conftest import Start

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.slow
def test_devices_that_send_anything(start: Start) -> None:
    server = start("--no-worker", **AMPLE)
    joe = register(server, "joejoejoe")
    device = make_devices(joe, 1)[0]
    number = begin(joe, put_file(server, "8.0"))
    assert device.fetch()
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json").include(path_regex="controller")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 14
    for operation in operations:
        @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(), theirs=some.booleans())
        def check(case: Any, theirs: bool) -> None:
            mine = {"tenant": joe.name, "controller": device.name, "module": str(number),
                    "action": str(device.action), "file": "firmware.raucb"}
            sent = {name: mine[name] if theirs or name in ("tenant", "controller") else value
                    for name, value in case.path_parameters.items()}
            case.path_parameters = sent
            case.call_and_validate(base_url=server.url, headers={"Authorization": device.token}, checks=CHECKS)

        check()
    assert "Traceback" not in server.log.read_text()
