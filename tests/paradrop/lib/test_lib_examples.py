"""The examples in docstrings of paradrop.lib are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["settings", "utils.addresses", "utils.ucitext"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"paradrop.lib.{module}"))
    assert found.attempted and not found.failed
