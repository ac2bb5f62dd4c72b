"""Network namespaces to be router and client in, and pdconfd working in one."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from namespaces import NEEDED, Namespace, remove

from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Runner
from paradrop.lib import settings


@pytest.fixture
def namespace() -> Iterator[Callable[[str], Namespace]]:
    """A function that makes a namespace; all are removed afterwards, with what still runs in them."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with ExitStack() as stack:
        def make(role: str) -> Namespace:
            found = Namespace(f"pd{os.getpid()}{role}")
            subprocess.run(["ip", "netns", "add", found.name], check=True)
            stack.callback(remove, found)
            found.run("ip", "link", "set", "lo", "up")
            return found
        yield make


@pytest.fixture
def router(namespace: Callable[[str], Namespace]) -> Namespace:
    """The namespace that pdconfd works in."""
    return namespace("r")


@pytest.fixture
def manager(router: Namespace, home: Path) -> Iterator[ConfigManager]:
    """A manager that works in the router's namespace and leaves nothing behind."""
    found = ConfigManager(settings.PDCONFD_WRITE_DIR, runner=Runner(router.prefix))
    yield found
    found.runner = Runner(router.prefix)
    found.unload()


@pytest.fixture
def dry(home: Path) -> ConfigManager:
    """A manager that runs nothing."""
    return ConfigManager(settings.PDCONFD_WRITE_DIR, execCommands=False)


@pytest.fixture
def write(home: Path) -> Callable[[str, str], str]:
    """A function that writes a UCI file and returns its path."""
    def write_file(name: str, text: str) -> str:
        path = Path(settings.UCI_CONFIG_DIR) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)
    return write_file
