"""Errors that the runtime shows to its users.

::

    ParadropError             anything below, when nothing more exact fits
    └── DescriptorError       a chute's descriptor is wrong; every mistake is listed
        └── ConflictError     the descriptor is sound, but another chute has what it asks for

Messages read "cannot …: …" and say what to do. Whatever is not a ParadropError is a bug.
"""

from collections.abc import Iterable


class ParadropError(Exception):
    """Base of all errors that are told to the one who asked. ``message`` is that text."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DescriptorError(ParadropError):
    """A chute's descriptor cannot be used.

    ``mistakes`` holds all of them, each as ``path: what is wrong``, for example
    ``net.wifi.ssid: longer than 32 bytes``.
    """

    def __init__(self, mistakes: Iterable[str], summary: str = "cannot use the chute's descriptor") -> None:
        self.mistakes = list(mistakes)
        super().__init__(f"{summary}: " + "; ".join(self.mistakes))


class ConflictError(DescriptorError):
    """Another chute already has a port, name, radio or network that this one asks for.

    Each of ``mistakes`` names that other chute.
    """

    def __init__(self, mistakes: Iterable[str]) -> None:
        super().__init__(mistakes, "cannot install beside the chutes that are here")
