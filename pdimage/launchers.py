"""The small programs in ``bin/``: each finds the release it lies in from its own path, links resolved, and goes on.

They put the release's ``bin`` first in PATH, so that one program of the release finds the others.
"""

from collections.abc import Sequence
from string import Template

_PYTHON = Template('''\
#!/usr/bin/env python3
"""Runs $what of the release that this file lies in."""
import os
import sys

sys.dont_write_bytecode = True
release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib", "python"))
os.environ["PATH"] = os.pathsep.join([os.path.join(release, "bin"), os.environ.get("PATH", os.defpath)])
$run''')

_SHELL = Template('''\
#!/bin/sh
# Runs $program of the release that this file lies in.
release=$$(dirname "$$(dirname "$$(readlink -f "$$0")")")
PATH="$$release/bin:$$PATH" ${libraries}exec "$$release/$program" "$$@"
''')


def python_function(module: str, attribute: str) -> str:
    """Return a program that calls ATTRIBUTE of MODULE and exits with what it returns."""
    first = attribute.partition(".")[0]
    return _PYTHON.substitute(
        what=f"{module}:{attribute}",
        run=f'if __name__ == "__main__":\n    from {module} import {first}\n\n    sys.exit({attribute}())\n')


def python_script(path: str) -> str:
    """Return a program that runs the Python script at PATH in the release."""
    return _PYTHON.substitute(what=path, run=(
        f'if __name__ == "__main__":\n    import runpy\n\n'
        f'    runpy.run_path(os.path.join(release, "{path}"), run_name="__main__")\n'))


def program(path: str, libraries: Sequence[str] = ()) -> str:
    """Return a program that runs the one at PATH in the release; LIBRARIES are directories of its shared objects."""
    if not libraries:
        return _SHELL.substitute(program=path, libraries="")
    joined = ":".join(f"$release/{directory}" for directory in libraries)
    return _SHELL.substitute(
        program=path, libraries=f'LD_LIBRARY_PATH="{joined}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}" ')
