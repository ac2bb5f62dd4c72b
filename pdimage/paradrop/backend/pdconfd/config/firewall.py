"""The firewall: zones with their policies, forwarding between them, redirects."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from paradrop.backend.pdconfd.config import iptables
from paradrop.backend.pdconfd.config.base import (
    AllConfigs,
    ConfigError,
    ConfigObject,
    SectionNotFound,
    option_list,
)
from paradrop.backend.pdconfd.config.effects import Step
from paradrop.backend.pdconfd.config.iptables import FORWARD, INPUT, IPV4, IPV6, OUTPUT, match, ports, rule
from paradrop.backend.pdconfd.config.network import ConfigInterface

log = logging.getLogger(__name__)

POLICIES = ("ACCEPT", "DROP", "REJECT", "RETURN")
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Zone:
    """Options of ``zone``.

    Policies are ACCEPT, DROP, REJECT or RETURN (no rule: what others say holds). ``conntrack`` accepts replies to what
    went out before the policies are asked; it is on with ``masq`` unless said otherwise. ``family`` is any, ipv4 or
    ipv6. Networks in masq_src and masq_dest limit masquerading; ``!`` before one excludes it.
    """

    name: str
    network: tuple[str, ...] = ()
    masq: bool = False
    masq_src: tuple[str, ...] = (ANYWHERE,)
    masq_dest: tuple[str, ...] = (ANYWHERE,)
    input: str = "DROP"
    forward: str = "DROP"
    output: str = "DROP"
    conntrack: bool | None = None
    family: str = "any"


@dataclass(frozen=True)
class Forwarding:
    """Options of ``forwarding``: what comes from zone ``src`` may go on to zone ``dest``."""

    src: str
    dest: str
    family: str = "any"


@dataclass(frozen=True)
class Redirect:
    """Options of ``redirect``.

    DNAT: what comes from zone ``src`` (sent by src_ip, src_port to src_dip, src_dport) goes to dest_ip and dest_port,
    or without dest_ip to dest_port of this router. SNAT: what goes to zone ``dest`` (from src_ip, src_port to dest_ip,
    dest_port) leaves as if sent by src_dip, and src_dport if given. ``proto`` is tcp, udp, tcpudp, another one, or any.
    """

    proto: str
    src: str | None = None
    src_ip: str | None = None
    src_dip: str | None = None
    src_port: str | None = None
    src_dport: str | None = None
    dest: str | None = None
    dest_ip: str | None = None
    dest_port: str | None = None
    target: str = "DNAT"


class ConfigZone(ConfigObject):
    """``zone``: some networks, what they may do, and whether they are hidden behind this router's address.

    A policy is about the packets of the zone's own links: ``input`` about those that arrive for this router,
    ``output`` about those that it sends, ``forward`` about those that arrive to be sent on, wherever they go; a
    ``forwarding`` or ``redirect`` section makes the exceptions. Networks that do not exist yet are left out until
    they do.
    """

    typename = "zone"
    values_type = Zone
    options = option_list(Zone)
    values: Zone

    def interfaces(self, allConfigs: AllConfigs) -> Iterator[ConfigInterface]:
        """List of interfaces in this zone (generator)."""
        for name in self.values.network:
            try:
                yield self.find(allConfigs, ConfigInterface, name)
            except SectionNotFound:
                log.warning("zone %s waits for interface %s, which does not exist", self.values.name, name)

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        links = [interface.real_name for interface in self.interfaces(allConfigs)]
        for program in programs(self.values.family, self.manager.ipv6, f"zone {self.name}"):
            yield from iptables.chains(program)
            for link in links:
                yield from self._policies(program, link)
            if program == IPV4 and self.values.masq:
                for link in links:
                    yield from self._masquerading(link)
                yield iptables.forwarding_on()

    def check(self) -> None:
        for policy in (self.values.input, self.values.forward, self.values.output):
            if policy.upper() not in POLICIES:
                raise ConfigError(f"cannot apply zone {self.values.name}: its policy {policy!r} is not one of "
                                  + ", ".join(POLICIES))

    def _policies(self, program: str, link: str) -> Iterator[Step]:
        comment = f"pdconfd zone {self.values.name}"
        conntrack = self.values.masq if self.values.conntrack is None else self.values.conntrack
        for chain, side, policy in ((INPUT, "--in-interface", self.values.input),
                                    (FORWARD, "--in-interface", self.values.forward),
                                    (OUTPUT, "--out-interface", self.values.output)):
            if conntrack and chain != FORWARD:
                yield rule(program, "filter", chain, (side, link, *iptables.REPLIES), comment)
            if policy.upper() != "RETURN":
                if chain == FORWARD:
                    # Frames that a bridge passes on are seen here, too, once Docker has set bridge-nf-call-iptables
                    yield rule(program, "filter", chain, (side, link, "--out-interface", link, "--jump", "ACCEPT"),
                               comment)
                yield rule(program, "filter", chain, (side, link, "--jump", policy.upper()), comment, append=True)

    def _masquerading(self, link: str) -> Iterator[Step]:
        for source in self.values.masq_src:
            for dest in self.values.masq_dest:
                limits = (*match("--source", None if source == ANYWHERE else source),
                          *match("--destination", None if dest == ANYWHERE else dest))
                yield rule(IPV4, "nat", "POSTROUTING", ("--out-interface", link, *limits, "--jump", "MASQUERADE"),
                           f"pdconfd zone {self.values.name}")


class BetweenZones(ConfigObject):
    """A section about what goes from zone ``src`` to zone ``dest``, which it names by their option ``name``."""

    watches = ("zone",)
    values: Forwarding | Redirect

    def concerns(self, other: ConfigObject) -> bool:
        return isinstance(other, ConfigZone) and other.values.name in (self.values.src, self.values.dest)


class ConfigForwarding(BetweenZones):
    """``forwarding``: lets packets go from one zone to another, whatever the policy of the first."""

    typename = "forwarding"
    values_type = Forwarding
    options = option_list(Forwarding)
    values: Forwarding

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        comment = f"pdconfd forwarding {self.values.src} {self.values.dest}"
        source = zone_links(self, allConfigs, self.values.src)
        dest = zone_links(self, allConfigs, self.values.dest)
        for program in programs(self.values.family, self.manager.ipv6, comment):
            yield from iptables.chains(program)
            for link in source:
                for other in dest:
                    words = ("--in-interface", link, "--out-interface", other, "--jump", "ACCEPT")
                    yield rule(program, "filter", FORWARD, words, comment)
            if program == IPV4:
                yield iptables.forwarding_on()


class ConfigRedirect(BetweenZones):
    """``redirect``: sends connections elsewhere (DNAT), or makes them look as if they came from elsewhere (SNAT)."""

    typename = "redirect"
    values_type = Redirect
    options = option_list(Redirect)
    values: Redirect

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        target = self.values.target.upper()
        if target not in ("DNAT", "SNAT"):
            raise ConfigError(f"cannot apply redirect {self.name}: its target {target} is neither DNAT nor SNAT")
        yield from iptables.chains(IPV4)
        for proto in protocols(self.values.proto):
            yield from self._dnat(allConfigs, proto) if target == "DNAT" else self._snat(allConfigs, proto)
        yield iptables.forwarding_on()

    def _dnat(self, allConfigs: AllConfigs, proto: str | None) -> Iterator[Step]:
        values, comment = self.values, f"pdconfd redirect {self.name}"
        links = zone_links(self, allConfigs, values.src) if values.src else [None]
        if not values.dest_ip and not (values.dest_port and proto):
            raise ConfigError(f"cannot apply redirect {self.name}: it has no dest_ip, and without that it needs a "
                              "dest_port and a protocol with ports")
        for link in links:
            arriving = (*match("--in-interface", link), *match("--source", values.src_ip))
            sender = ports("--sport", values.src_port if proto else None)
            before = (*arriving, *match("--destination", values.src_dip), *match("--proto", proto), *sender,
                      *ports("--dport", values.src_dport if proto else None))
            # With no port of its own the connection keeps the one it was made to
            port = ports("--dport", (values.dest_port or values.src_dport) if proto else None)
            redirected = ("--match", "conntrack", "--ctstate", "DNAT", "--jump", "ACCEPT")
            after = (*arriving, *match("--destination", values.dest_ip), *match("--proto", proto), *sender, *port,
                     *redirected)
            yield rule(IPV4, "nat", "PREROUTING", (*before, *self._target(proto)), comment)
            yield rule(IPV4, "filter", FORWARD if values.dest_ip else INPUT, after, comment)

    def _target(self, proto: str | None) -> tuple[str, ...]:
        values = self.values
        port = values.dest_port.replace(":", "-") if values.dest_port and proto else ""
        if values.dest_ip:
            return ("--jump", "DNAT", "--to-destination", f"{values.dest_ip}:{port}" if port else values.dest_ip)
        return ("--jump", "REDIRECT", "--to-port", port)

    def _snat(self, allConfigs: AllConfigs, proto: str | None) -> Iterator[Step]:
        values = self.values
        if not values.dest or not values.src_dip:
            raise ConfigError(f"cannot apply redirect {self.name}: SNAT needs dest, the zone that packets leave to, "
                              "and src_dip, the address that they get")
        port = f":{values.src_dport}" if values.src_dport and proto else ""
        for link in zone_links(self, allConfigs, values.dest):
            words = ("--out-interface", link, *match("--source", values.src_ip),
                     *match("--destination", values.dest_ip), *match("--proto", proto),
                     *ports("--sport", values.src_port if proto else None),
                     *ports("--dport", values.dest_port if proto else None),
                     "--jump", "SNAT", "--to-source", f"{values.src_dip}{port}")
            yield rule(IPV4, "nat", "POSTROUTING", words, f"pdconfd redirect {self.name}")


def zone_links(section: ConfigObject, allConfigs: AllConfigs, zone: str) -> list[str]:
    """Return the network links of a zone, found by its option ``name``; the section becomes a dependent of the zone.

    Raises:
        SectionNotFound: there is no such zone.
    """
    named = (config.name for config in section.all_of(allConfigs, ConfigZone) if config.values.name == zone)
    found = section.find(allConfigs, ConfigZone, next(named, zone))
    return [interface.real_name for interface in found.interfaces(allConfigs)]


def protocols(proto: str) -> tuple[str | None, ...]:
    """Return the protocols to make rules for; None is a rule for all of them, which cannot look at ports."""
    if proto.lower() in ("any", "all", "none"):
        return (None,)
    return ("tcp", "udp") if proto.lower() == "tcpudp" else (proto.lower(),)


def programs(family: str, ipv6: bool, what: str) -> list[str]:
    """Return the programs that rules of an address family go to; IPv6 is left out where the kernel has none."""
    wanted = {"any": [IPV4, IPV6], "ipv4": [IPV4], "ipv6": [IPV6]}.get(family)
    if wanted is None:
        raise ConfigError(f"cannot apply {what}: its family {family!r} is not one of any, ipv4, ipv6")
    return [program for program in wanted if program == IPV4 or ipv6]
