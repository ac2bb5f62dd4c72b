"""A chute as the router knows it: what its descriptor says, its state, and a cache of what was decided for it."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger(__name__)

STATES = ("invalid", "disabled", "running", "frozen", "stopped")

# What a descriptor may set. Anything else in a request (the update's own fields, or mischief) stays outside.
DESCRIPTOR_KEYS = frozenset({
    "name", "description", "owner", "date", "version",
    "dockerfile", "download", "external_image", "source", "build",
    "type", "use", "command", "packages", "image_source", "image_version", "as_root",
    "net", "firewall", "host_config", "environment", "dataDir", "systemDir", "web", "resources",
    "services", "config",
})
_OWN_KEYS = frozenset({"state", "warning"})


class Chute:
    """Wrapper of a chute's descriptor.

    Every key that a descriptor may have becomes an attribute, and only those present do: ``hasattr(chute, "net")``
    tells whether the descriptor has networks. Besides them there are ``state`` (one of STATES), ``warning`` (text told
    to the user at the next operation, or None) and the cache.
    """

    name: str | None
    state: str
    warning: str | None
    _cache: dict[str, Any]

    def __init__(self, descriptor: Mapping[str, Any], strip: Iterable[str] | None = None) -> None:
        self.name = None
        self.state = "invalid"
        self.warning = None
        self._cache = {}
        dropped = set(strip or ())
        for key, value in descriptor.items():
            if key in DESCRIPTOR_KEYS | _OWN_KEYS and key not in dropped:
                setattr(self, key, value)

    @classmethod
    def fromDump(cls, dump: Mapping[str, Any]) -> "Chute":
        """Return the chute that fullDump() was made of."""
        chute = cls(dump)
        chute._cache = dict(dump.get("cache") or {})
        return chute

    def __repr__(self) -> str:
        return f"<Chute {self.name} - {self.state}>"

    def __str__(self) -> str:
        return f"Chute:{self.name}"

    def isValid(self) -> bool:
        """Return True only if the chute has a name."""
        return bool(self.name)

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor's keys and values, as they came."""
        return {key: value for key, value in vars(self).items() if key in DESCRIPTOR_KEYS and value is not None}

    def inherit(self, old: "Chute") -> None:
        """Take from an older self every part of the descriptor that this one lacks, as start and restart do."""
        for key, value in old.descriptor.items():
            if getattr(self, key, None) is None:
                setattr(self, key, value)

    def setCache(self, key: str, val: Any) -> None:
        """Set a value of the cache."""
        self._cache[key] = val

    def getCache(self, key: str) -> Any:
        """Return a value of the cache, None if there is none."""
        return self._cache.get(key)

    def delCache(self, key: str) -> None:
        """Drop a value of the cache, if it is there."""
        self._cache.pop(key, None)

    def appendCache(self, key: str, val: Any) -> None:
        """Append to a list of the cache, beginning one if need be. Does nothing to a value that is no list."""
        values = self._cache.setdefault(key, [])
        if not isinstance(values, list):
            log.warning("%s: the cache's %s is not a list, so nothing can be appended", self, key)
            return
        values.append(val)

    def dumpCache(self) -> str:
        """Return the cache as text, one ``key:value`` on a line."""
        return "\n".join(f"{key}:{val}" for key, val in self._cache.items())

    def fullDump(self) -> dict[str, Any]:
        """Return everything: the descriptor, state and warning, and the cache under ``cache``."""
        return {**self.descriptor, "name": self.name, "state": self.state, "warning": self.warning,
                "cache": dict(self._cache)}
