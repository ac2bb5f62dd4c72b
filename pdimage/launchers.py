"""The small programs in ``bin/``: each finds the release it lies in from its own path, links resolved, and goes on.

So a tree works wherever it lies and through whatever link. They put the release's ``bin`` first in PATH, so that one
program of the release finds the others. Python programs run on the system's Python, isolated, through ``lib/start.py``.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template

START = "lib/start.py"
"""Where in the tree the file START_FILE lies, which Python programs need."""
START_FILE = Path(__file__).parent / "release/start.py"

_SCRIPT = Template('''\
#!/bin/sh
# Runs $what of the release that this file is in, through whatever link it was called.
program=$$(readlink -f "$$0")
release=$${program%/*/*}
export PATH="$$release/bin:$$PATH"$exports
exec $command "$$@"
''')


def python(what: str) -> str:
    """Return a program that calls WHAT, a ``module:function``, or runs the Python script at WHAT in the release.

    It exits with what the function returns.
    """
    return _SCRIPT.substitute(
        what=what, exports=' RELEASE_PROGRAM="${0##*/}"',
        command=f'"${{RELEASE_PYTHON:-python3}}" -I -B "$release/{START}" {shlex.quote(what)}')


def program(path: str, libraries: Sequence[str] = ()) -> str:
    """Return a program that runs the one at PATH in the release; LIBRARIES are directories of its shared objects."""
    joined = ":".join(f"$release/{directory}" for directory in libraries)
    exports = f' LD_LIBRARY_PATH="{joined}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"' if libraries else ""
    return _SCRIPT.substitute(what=path, exports=exports, command=f'"$release/{path}"')
