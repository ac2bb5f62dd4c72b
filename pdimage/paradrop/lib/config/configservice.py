"""Has the router act on changed configuration files: addresses, wireless networks, DHCP servers, firewall."""

import json
import logging

from paradrop.backend.pdconfd import client
from paradrop.lib.config.parties import Update
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)


def reloadAll(update: Update) -> None:
    """Have pdconfd read all UCI files and run what follows from them.

    Raises:
        ParadropError: pdconfd did not answer, or a section of this update's chute is not in force. What other
            chutes' sections do is not this update's fault; those that fail are logged.
    """
    answer = client.reloadAll()
    if answer is None:
        raise ParadropError("cannot apply the configuration: pdconfd does not answer; see the router's log")
    failed = [section for section in json.loads(answer) if not section["success"]]
    for section in failed:
        log.warning("the section %s %s of %s is not in force: %s", section["type"], section["name"],
                    section.get("comment"), section.get("error"))
    own = [f"{section['type']} {section['name']} is not in force: {section.get('error')}"
           for section in failed if section.get("comment") == update.name]
    if own:
        raise ParadropError("Error preparing host environment for chute: " + "; ".join(own))


def reloadQos(update: Update) -> None:
    """Have traffic shaping follow its configuration. It is part of reloadAll, so nothing is left to do here."""
