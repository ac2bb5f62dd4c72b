"""The examples in docstrings of the registry are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["admission", "permissions", "provisioning", "routers", "tunnel"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"pdimage.server.registry.{module}"))
    assert found.attempted
    assert not found.failed
