"""The sections of the ``firewall`` file: a zone for each network of a chute, and the redirects that it asks for."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from paradrop.lib import descriptor
from paradrop.lib.chutespec import Redirect
from paradrop.lib.config import uciutils
from paradrop.lib.config.parties import WITHOUT_NETWORKS, Update, interfaces
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

Record = TypeVar("Record", bound=Mapping[str, Any])


def findMatchingInterface(iface_name: str, interfaces: Iterable[Record]) -> Record | None:
    """Return the first interface whose name matches, None if none does.

    iface_name can have shell-style wildcards (* and ?).
    """
    return next((one for one in interfaces if fnmatchcase(one["name"], iface_name)), None)


def getOSFirewallRules(update: Update) -> None:
    """Store in the cache key osFirewallRules what must be there for the chute's networks to function at all."""
    sections: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for one in interfaces(update.new):
        if "externalIpaddr" in one:
            options: dict[str, Any] = {"name": one["externalIntf"], "input": "ACCEPT", "forward": "REJECT",
                                       "output": "ACCEPT", "masq": "0"}
            uciutils.setList(options, "network", [one["externalIntf"]])
            sections.append(({"type": "zone"}, options))
    update.new.setCache("osFirewallRules", sections)


def getDeveloperFirewallRules(update: Update) -> None:
    """Store in the cache key developerFirewallRules the redirects that the descriptor asks for.

    They lead to the chute's own address. (Old versions used the router's address in that network, where nothing of the
    chute listens.)

    Raises:
        DescriptorError: the descriptor is wrong.
        ParadropError: no interface with an address matches.
    """
    rules: tuple[Redirect, ...] = ()
    if update.updateType not in WITHOUT_NETWORKS and update.new.descriptor.keys() & {"firewall", "config"}:
        rules = descriptor.parse(update.new.descriptor, complete=False).firewall
    update.new.setCache("developerFirewallRules",
                        [_redirect(update, number, rule) for number, rule in enumerate(rules)])


def setOSFirewallRules(update: Update) -> bool:
    """Put the sections into the ``firewall`` file. Return True if it was changed; raises as uciutils.setConfig."""
    return uciutils.setConfig(update.new, update.old, ["osFirewallRules", "developerFirewallRules"],
                              uci.getSystemPath("firewall"))


def _redirect(update: Update, number: int, rule: Redirect) -> tuple[dict[str, Any], dict[str, Any]]:
    target = findMatchingInterface(rule.to, [one for one in interfaces(update.new) if "internalIpaddr" in one])
    if target is None:
        raise ParadropError(f"cannot make the rule {rule.path}: Interface not found: {rule.to}")
    options = {"src": "wan", "proto": "tcpudp", "dest_ip": target["internalIpaddr"], "target": "DNAT"}
    if rule.name:
        options["name"] = rule.name
    if rule.port:
        options["src_dport"] = str(rule.port)
    if rule.to_port:
        options["dest_port"] = str(rule.to_port)
    # Named, because two chutes may call their rules alike and a later section of a name replaces the earlier one
    return {"type": "redirect", "name": f"{target['externalIntf']}_{number}"}, options
