"""The stages of an upgrade, as far as one may want power to go just then. Nothing but values here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """It begins when FUNCTION of MODULE is called for the CALL-th time in a command."""

    module: str
    function: str
    call: int = 1


# By scene (see scenes.py) and name.
STAGES: Mapping[str, Mapping[str, Stage]] = {
    "first": {"unpack": Stage("fussy.unpack", "unpack_release"), "swap": Stage("fussy.disk", "swap_link")},
    "install": {
        "unpack": Stage("fussy.unpack", "unpack_release"),
        "publish": Stage("fussy.disk", "publish"),
        "pre-install": Stage("fussy.enable", "before_swap"),
        "swap": Stage("fussy.disk", "swap_link"),
        "post-install": Stage("fussy.enable", "after_swap"),
        "accept": Stage("fussy.enable", "accepted"),
    },
    "spare": {"compare": Stage("fussy.recycle", "reuse"), "change": Stage("fussy.unpack", "_unpack_described")},
    "fallback": {
        "mark": Stage("fussy.enable", "mark"),
        "swap-back": Stage("fussy.disk", "swap_link", 2),
        "end": Stage("fussy.enable", "_end"),
    },
    "rollback": {"swap": Stage("fussy.disk", "swap_link"), "accept": Stage("fussy.enable", "accepted")},
    "swap": {"swap": Stage("fussy.disk", "swap_link")},
    "trial": {"swap": Stage("fussy.disk", "swap_link"), "begin": Stage("fussy.trial", "begun")},
    "confirm": {"accept": Stage("fussy.enable", "accepted")},
    "reject": {"mark": Stage("fussy.enable", "mark"), "swap-back": Stage("fussy.disk", "swap_link")},
    "clean": {"discard": Stage("fussy.disk", "discard"), "empty": Stage("fussy.disk", "empty", 2)},
    "first-failsafe": {"publish": Stage("fussy.disk", "publish")},
    "failsafe": {"copy": Stage("fussy.failsafe", "blocks_of"), "exchange": Stage("fussy.disk", "exchange")},
}
