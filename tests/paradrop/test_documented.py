"""Every documented module, class, function, method and attribute is there and takes what is documented.

``documented.txt`` is the table: a module in brackets, then its names with parameters and their defaults, or ``name <
base class``. What was Twisted's (its base classes) is left out.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest


def documented() -> list[tuple[str, str]]:
    """Return the table: module and what it has, which is empty for the module itself."""
    found, module = [], ""
    for line in (Path(__file__).parent / "documented.txt").read_text().splitlines():
        if line.startswith("["):
            module = line.strip("[]")
            line = ""
        found.append((module, line))
    return found


def look_up(path: str, inside: Any) -> Any:
    for name in path.split("."):
        inside = getattr(inside, name)
    return inside


@pytest.mark.parametrize(("module", "entry"), documented(), ids=":".join)
def test_it_is_there(module: str, entry: str) -> None:
    found = importlib.import_module(module)
    if not entry:
        assert inspect.getdoc(found)
    elif "(" in entry:
        path, _, arguments = entry.partition("(")
        check_parameters(look_up(path, found), f"lambda {arguments[:-1]}: 0", method="." in path)
    elif " < " in entry:
        path, _, base = entry.partition(" < ")
        base_module, _, base_class = base.rpartition(".")
        assert issubclass(look_up(path, found), getattr(importlib.import_module(base_module), base_class))
    else:
        look_up(entry, found)


def check_parameters(function: Any, wanted_as: str, method: bool) -> None:
    """Whoever calls it as documented is understood; what it takes besides has a default."""
    has = inspect.signature(function).parameters
    names = [name for name in has if not (method and name == "self")]
    wanted = inspect.signature(eval(wanted_as)).parameters
    assert inspect.getdoc(function)
    variable = [has[name].kind for name in names if has[name].kind in (inspect.Parameter.VAR_POSITIONAL,
                                                                         inspect.Parameter.VAR_KEYWORD)]
    fixed = [name for name, parameter in wanted.items() if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if fixed or not wanted:  # (*args, **kwargs) alone is what a decorator made of it; there is nothing to compare
        assert names[:len(fixed)] == fixed
        assert all(has[name].default is not inspect.Parameter.empty or has[name].kind in variable
                   for name in names[len(fixed):])
    for name in fixed:
        default = wanted[name].default
        if default is not inspect.Parameter.empty:
            assert has[name].default == default or (not default and not has[name].default)
