"""How processor time is shared out between the containers of all chutes.

A service may ask for a fraction of it. What is left over is split equally among all services, also those that asked.
The engine is told weights; with equal weights of 1024 for everybody as the usual case.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from paradrop.lib import descriptor
from paradrop.lib.chute import Chute
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import containers

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject

log = logging.getLogger(__name__)

USUAL = 1024
LEAST = 2

Key = tuple[str, str]
"""A chute and one of its services."""


def shares(fractions: Mapping[Key, float | None]) -> dict[Key, int]:
    """Return the weight of each service, from the fractions that they ask for.

    >>> shares({("a", "main"): None, ("b", "main"): None})
    {('a', 'main'): 1024, ('b', 'main'): 1024}
    >>> shares({("a", "main"): 0.5, ("b", "main"): None})
    {('a', 'main'): 1536, ('b', 'main'): 512}

    Raises:
        ParadropError: together they ask for more than there is.
    """
    asked = sum(fraction or 0.0 for fraction in fractions.values())
    if asked > 1:
        greedy = ", ".join(f"{chute}: {fraction:g}" for (chute, _), fraction in fractions.items() if fraction)
        raise ParadropError(f"cannot give the chutes {asked:g} of the processors' time, which is more than all of it "
                            f"({greedy}); lower cpu_fraction")
    count = len(fractions)
    return {key: max(LEAST, round(((fraction or 0.0) * count + 1 - asked) * USUAL))
            for key, fraction in fractions.items()}


def getAllocation(update: "UpdateObject") -> None:
    """Plan: work out the weights of all running chutes with this one as it shall be.

    Stored in the new chute's cache: cpuShares, its own by service; newShares and oldShares, those of all.
    """
    others = [chute for chute in update.chuteStor.getChuteList()
              if chute.state == "running" and chute.name != update.name]
    before = [update.old] if update.old is not None and update.old.state == "running" else []
    after = [update.new] if update.new.state == "running" else []
    if not any(_may_ask(chute) for chute in [*others, *before, *after]):
        return
    new = shares(_fractions([*others, *after]))
    update.new.setCache("newShares", new)
    update.new.setCache("oldShares", shares(_fractions([*others, *before])))
    own = {service: value for (chute, service), value in new.items() if chute == update.name}
    update.new.setCache("cpuShares", own)


def setAllocation(update: "UpdateObject") -> None:
    """Plan: give the other chutes' containers their new weights, where they differ."""
    _apply(update, update.new.getCache("oldShares") or {}, update.new.getCache("newShares") or {})


def revertAllocation(update: "UpdateObject") -> None:
    """Undo of setAllocation."""
    _apply(update, update.new.getCache("newShares") or {}, update.new.getCache("oldShares") or {})


def _apply(update: "UpdateObject", before: Mapping[Key, int], after: Mapping[Key, int]) -> None:
    for chute in update.chuteStor.getChuteList():
        for service, container in containers.recorded(chute).items():
            key = (str(chute.name), service)
            if chute.name != update.name and key in after and before.get(key) != after[key]:
                containers.set_shares(container, after[key])


def _may_ask(chute: Chute) -> bool:
    """Return whether a chute's descriptor may ask for a fraction; most do not, and need not be read."""
    return bool(getattr(chute, "resources", None) or getattr(chute, "services", None) or getattr(chute, "config", None))


def _fractions(chutes: Iterable[Chute]) -> dict[Key, float | None]:
    return {(str(chute.name), service.name): service.cpu_fraction
            for chute in chutes for service in descriptor.parse(chute.descriptor).services}
