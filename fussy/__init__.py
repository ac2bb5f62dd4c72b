"""Field upgrades for Linux devices: pack, verify, install, swap, fall back.

Nothing heavy is imported here: the commands start on slow routers. ``with_lock`` is fetched when it is first asked
for, so that the documented ``from fussy import with_lock`` works without loading :mod:`fussy.cronlock` for everybody.
"""

from typing import Any

__version__ = "2.0.0"


def __getattr__(name: str) -> Any:
    if name == "with_lock":
        from fussy.cronlock import with_lock

        return with_lock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
