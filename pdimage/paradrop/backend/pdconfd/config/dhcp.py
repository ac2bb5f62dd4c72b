"""DHCP and DNS: dnsmasq and what it hands out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from paradrop.backend.pdconfd.config.base import AllConfigs, ConfigError, ConfigObject, option_list
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import StartDaemon, Step
from paradrop.backend.pdconfd.config.network import ConfigInterface


@dataclass(frozen=True)
class Dhcp:
    """Options of ``dhcp``: the addresses handed out on one interface.

    The first one is ``start`` after the network's own, and ``limit`` more follow (limit + 1 in all, as ever), as far
    as the network reaches. ``lease`` is another name for ``leasetime``. ``relay`` are servers to pass requests on to,
    instead of answering them.
    """

    interface: str
    leasetime: str = "12h"
    lease: str | None = None
    start: int = 100
    limit: int = 150
    dhcp_option: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dnsmasq:
    """Options of ``dnsmasq``. Without ``interface`` it serves all interfaces that have a ``dhcp`` section."""

    interface: tuple[str, ...] = ()
    noresolv: bool = False
    server: tuple[str, ...] = ()
    domain: str | None = None
    leasefile: str | None = None
    authoritative: bool = True
    cachesize: int = 150
    dhcp_boot: str | None = None
    dhcpleasemax: int = 1000
    enable_tftp: bool = False
    expandhosts: bool = True
    tftp_root: str | None = None


@dataclass(frozen=True)
class Domain:
    """Options of ``domain``: a name that every dnsmasq answers with an address of our choice."""

    name: str
    ip: str


class ConfigDhcp(ConfigObject):
    """``dhcp``: says what dnsmasq hands out on an interface; it does nothing by itself."""

    typename = "dhcp"
    values_type = Dhcp
    options = option_list(Dhcp)
    values: Dhcp


class ConfigDomain(ConfigObject):
    """``domain``: a name for dnsmasq; it does nothing by itself."""

    typename = "domain"
    values_type = Domain
    options = option_list(Domain)
    values: Domain


def get_all_dhcp_interfaces(allConfigs: AllConfigs) -> list[str]:
    """Return the names of the interfaces that have a ``dhcp`` section, each once, in order."""
    found = (config.values.interface for config in allConfigs.values() if isinstance(config, ConfigDhcp))
    return list(dict.fromkeys(found))


class ConfigDnsmasq(ConfigObject):
    """``dnsmasq``: one process that serves DHCP and DNS on some interfaces.

    Its files are ``dnsmasq-NAME.conf``, ``.pid`` and ``.leases`` in the manager's directory; they go with it, the
    leases too (an old lease is worth nothing on another network). A ``leasefile`` of the section's own choice stays.
    """

    typename = "dnsmasq"
    values_type = Dnsmasq
    options = option_list(Dnsmasq)
    watches = ("dhcp", "domain")
    values: Dnsmasq

    def concerns(self, other: ConfigObject) -> bool:
        served = self.values.interface
        return not (served and isinstance(other, ConfigDhcp)) or other.values.interface in served

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        names = self.values.interface or get_all_dhcp_interfaces(allConfigs)
        if not names:
            raise ConfigError(f"cannot start dnsmasq {self.name}: no interface has a dhcp section")
        served = [(self._dhcp(allConfigs, name), self.find(allConfigs, ConfigInterface, name)) for name in names]
        place = self.place("dnsmasq")
        leases = self.values.leasefile or f"{place}.leases"
        lines = [*dnsmasq_lines(self.values, leases), *domain_lines(self.all_of(allConfigs, ConfigDomain))]
        on: list[str] = []
        for dhcp, interface in served:
            lines += interface_lines(dhcp, interface, alone=len(served) == 1)
            on += [*interface.standing(allConfigs), str(interface.address)]
        daemon = StartDaemon(("dnsmasq", f"--conf-file={place}.conf", f"--pid-file={place}.pid"), f"{place}.conf",
                             "\n".join(lines) + "\n", f"{place}.pid",
                             () if self.values.leasefile else (leases,))
        yield Step(Command.PRIO_START_DAEMON, daemon, daemon.stop(), on=tuple(on))

    def _dhcp(self, allConfigs: AllConfigs, interface: str) -> ConfigDhcp:
        """Return the dhcp section that is for an interface; without one, its coming is waited for under that name."""
        for config in self.all_of(allConfigs, ConfigDhcp):
            if config.values.interface == interface:
                return self.find(allConfigs, ConfigDhcp, config.name)
        return self.find(allConfigs, ConfigDhcp, interface)


def dnsmasq_lines(values: Dnsmasq, leases: str) -> Iterator[str]:
    """Yield the lines of dnsmasq's configuration that are not about one interface."""
    yield f"dhcp-leasefile={leases}"
    if values.domain:
        yield f"domain={values.domain}"
    if values.noresolv:
        yield "no-resolv"
    for server in values.server:
        yield f"server={server}"
    for wanted, line in ((values.authoritative, "dhcp-authoritative"), (values.expandhosts, "expand-hosts"),
                         (values.enable_tftp, "enable-tftp")):
        if wanted:
            yield line
    yield f"cache-size={values.cachesize}"
    yield f"dhcp-lease-max={values.dhcpleasemax}"
    if values.tftp_root:
        yield f"tftp-root={values.tftp_root}"
    if values.dhcp_boot:
        yield f"dhcp-boot={values.dhcp_boot}"
    yield "except-interface=lo"
    yield "bind-interfaces"


def interface_lines(dhcp: ConfigDhcp, interface: ConfigInterface, alone: bool = True) -> Iterator[str]:
    """Yield the lines of dnsmasq's configuration about one interface; unless it is alone, its options are tagged.

    Raises:
        ConfigError: the interface has no static address, or no address of its network would be handed out.
    """
    values, address = dhcp.values, interface.address
    if address is None:
        raise ConfigError(f"cannot serve DHCP on interface {interface.name}: its address is not static")
    yield f"interface={interface.real_name}"
    if values.relay:
        for server in values.relay:
            yield f"dhcp-relay={address.ip},{ip_address(server)}"
        return
    network = address.network
    first = network.network_address + values.start
    last = min(first + values.limit, network.broadcast_address - 1)
    if values.start < 1 or first not in network or last < first:
        raise ConfigError(f"cannot serve DHCP on interface {interface.name}: no address of {network} is {values.start} "
                          f"or more after the first")
    yield f"dhcp-range={first},{last},{network.netmask},{values.lease or values.leasetime}"
    # dnsmasq tags a request with the name of the interface it came in on
    tag = "" if alone else f"tag:{interface.real_name},"
    for option in values.dhcp_option:
        yield f"dhcp-option={tag}{option}"


def domain_lines(domains: Iterable[ConfigDomain]) -> Iterator[str]:
    """Yield the lines that answer a name with an address."""
    for domain in domains:
        yield f"address=/{domain.values.name}/{ip_address(domain.values.ip)}"
