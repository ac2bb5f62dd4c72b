"""What the router tells its server of itself."""

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

import fussy
from fussy import uptime
from fussy.errors import FussyError
from paradrop.backend.link.messages import MESSAGE_BYTES, Chute, Facts
from paradrop.lib import chute, firmware

log = logging.getLogger(__name__)

_ROOM = 4096
"""What else a message holds, in bytes."""
_CHUTES = 200
"""The most chutes that are told of."""


def facts(chutes: Iterable[chute.Chute]) -> Facts:
    """Return what is so now; ``chutes`` are those of the store. What does not fit into a message is left out."""
    listed = tuple(Chute(str(one.name), one.state, str(one.descriptor.get("version") or ""))
                   for one in itertools.islice(chutes, _CHUTES))
    boot, up = uptime.now()
    now = Facts(fussy.__version__, _firmware(), listed, round(up, 1), boot)
    if len(msgspec.json.encode(now)) > MESSAGE_BYTES - _ROOM:
        now = msgspec.structs.replace(now, firmware=None)
    return now


def same(one: Facts, other: Facts) -> bool:
    """Tell whether there is nothing new to report: time alone goes on."""
    return msgspec.structs.replace(one, uptime=0.0) == msgspec.structs.replace(other, uptime=0.0)


def _firmware() -> dict[str, Any] | None:
    try:
        found = firmware.status()
    except (FussyError, OSError) as error:
        log.warning("cannot tell the server of the firmware: %s", error)
        return None
    return None if found is None else msgspec.to_builtins(found)
