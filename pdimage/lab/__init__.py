"""Virtual routers for tests: real kernels in QEMU, described in one file, with networks, snapshots, ssh and power.

The command line is ``pdimage lab``; README.rst beside this file is the walk through it. ``Prefix`` is an environment.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdimage.lab.prefix import Prefix

__all__ = ["Prefix", "_create_ip", "_ip_in_subnet"]


def __getattr__(name: str) -> Any:
    """Load what the documents have here when it is used: the pytest plugin is loaded in tests without machines too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pdimage.lab import prefix, topology

    return {"Prefix": prefix.Prefix, "_create_ip": topology.create_ip, "_ip_in_subnet": topology.ip_in_subnet}[name]
