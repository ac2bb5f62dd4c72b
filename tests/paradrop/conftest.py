"""What tests of the runtime share."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from engine import engine, engine_of_session, router  # noqa: F401 (fixtures)

from paradrop.lib import settings

# The time of one example says nothing on a machine that does other work too.
hypothesis.settings.register_profile(
    "runtime", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("runtime")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A temporary directory below which the settings put every file of the runtime; settings are put back after."""
    before = {name: value for name, value in vars(settings).items() if name.isupper()}
    settings.relocate(tmp_path)
    yield tmp_path
    for name in [name for name in vars(settings) if name.isupper() and name not in before]:
        delattr(settings, name)
    vars(settings).update(before)
