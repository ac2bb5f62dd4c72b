"""What the Lago documents name is there under pdimage.lab, and explained.

``documented.txt`` is the table. Left out are private names that speak of libvirt, guestfs or paramiko, which we do not
use.
"""

import importlib
import inspect
from pathlib import Path

import pytest

TABLE = [line for line in Path(__file__).with_name("documented.txt").read_text().splitlines() if line[0] != "#"]


@pytest.mark.parametrize("line", TABLE, ids=lambda line: line.partition(":")[0])
def test_it_is_there(line: str) -> None:
    place, _, names = line.partition(":")
    module, _, cls = place.partition(".")
    found = importlib.import_module(f"pdimage.lab.{module}".removesuffix(".__init__"))
    assert inspect.getdoc(found)
    inside = getattr(found, cls) if cls else found
    assert inspect.getdoc(inside)
    assert [name for name in names.split() if not hasattr(inside, name)] == []
