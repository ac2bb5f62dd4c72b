"""The examples in docstrings of the runtime are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", [
    "backend.link.messages", "backend.pdconfd.bus", "backend.pdconfd.config.hostapd",
    "backend.pdconfd.config.iptables", "backend.pdfcd.apiutils", "image.chutes", "lib.api.pdapi", "lib.api.wire",
    "lib.config.allocation", "lib.settings", "lib.utils.addresses", "lib.utils.carried", "lib.utils.dockerbuild",
    "lib.utils.fetch", "lib.utils.netns", "lib.utils.ucitext", "tools.client", "tools.show"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"paradrop.{module}"))
    assert found.attempted and not found.failed
