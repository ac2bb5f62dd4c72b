"""The ``paradrop`` command: talks to a router over HTTP."""
