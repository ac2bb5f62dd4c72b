"""What ends the ``paradrop`` command, and with which exit code.

::

    FussyError
    └── ToolError          1   the router was asked and could not do it
        ├── BadProject     3   the chute's files cannot be used; the router was not asked
        ├── Unreachable    4   the router does not answer, or stopped answering
        └── NotAllowed     5   the router wants a password or token, or another one
"""

from fussy.errors import FussyError


class ToolError(FussyError):
    """The router was asked and could not do it."""


class BadProject(ToolError):
    """The chute's files cannot be used."""

    exit_code = 3


class Unreachable(ToolError):
    """The router does not answer."""

    exit_code = 4


class NotAllowed(ToolError):
    """The router refuses this user."""

    exit_code = 5
