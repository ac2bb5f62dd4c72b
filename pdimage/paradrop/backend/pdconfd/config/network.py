"""Network interfaces: addresses, bridges, VLANs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from paradrop.backend.pdconfd.config.base import AllConfigs, ConfigError, ConfigObject, option_list
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import Effect, RememberLink, Run, Step

# Names that begin with v are those of chutes, whose numbers after the dot mean something else
_VLAN = re.compile(r"(?P<parent>[^v].*)\.(?P<id>[1-9][0-9]{0,3})")
_IFNAME = re.compile(r"[^\s/:]{1,15}")


@dataclass(frozen=True)
class Interface:
    """Options of ``interface``.

    ``type`` is empty or ``bridge``. ``ifname`` of a bridge are its members; a bridge without any is only made with
    ``bridge_empty``.
    """

    proto: str
    ifname: tuple[str, ...] = ()
    enabled: bool = True
    ipaddr: str | None = None
    netmask: str | None = None
    gateway: str | None = None
    type: str | None = None
    bridge_empty: bool = False


class ConfigInterface(ConfigObject):
    """``interface``: a network link and its address.

    With proto ``static`` the link gets the address, after those it had were put aside, and is brought up (or down, if
    not enabled); with every other proto its addresses are left to the host. Undo brings addresses, routes and up or
    down back as they were.
    """

    typename = "interface"
    values_type = Interface
    options = option_list(Interface)
    watches = ("wifi-iface",)
    values: Interface

    @property
    def is_bridge(self) -> bool:
        return self.values.type == "bridge"

    @property
    def real_name(self) -> str:
        """The name of the link that carries the address: the bridge ``br-NAME``, or the first ifname."""
        if self.is_bridge:
            return checked_ifname(f"br-{self.name}")
        if not self.values.ifname:
            raise ConfigError(f"cannot use interface {self.name}: it names no ifname")
        return checked_ifname(self.values.ifname[0])

    @property
    def address(self) -> IPv4Interface | None:
        """The static address, or None if this section gives none."""
        if self.values.proto != "static":
            return None
        if not self.values.ipaddr:
            raise ConfigError(f"cannot use interface {self.name}: it is static and has no ipaddr")
        mask = (self.values.netmask or "").removeprefix("/")
        return IPv4Interface(f"{self.values.ipaddr}/{mask}" if mask else self.values.ipaddr)

    def check(self) -> None:
        _ = self.real_name, self.address
        if self.values.gateway:
            IPv4Address(self.values.gateway)

    def standing(self, allConfigs: AllConfigs) -> tuple[str, ...]:
        """Return what says whether the link is still the same one: its name, and how it was made if we make it."""
        name = self.real_name
        for (kind, _), config in allConfigs.items():
            if kind == "wifi-iface" and (made := config.made_links(allConfigs).get(name)):
                config.addDependent(self)
                return (name, *made)
        return (name,)

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        yield from self._links()
        address = self.address
        if address is None:
            return
        name, on = self.real_name, self.standing(allConfigs)
        if not self.is_bridge and len(on) == 1:
            yield Step(Command.PRIO_CONFIG_IFACE, RememberLink(name), on=on)
        # The mask stays as it was written: ip takes both forms
        text = f"{address.ip}/{(self.values.netmask or '32').removeprefix('/')}"
        yield _configure(on, ["ip", "addr", "flush", "dev", name])
        yield _configure(on, ["ip", "addr", "add", text, "dev", name], ["ip", "addr", "del", text, "dev", name])
        yield _configure(on, ["ip", "link", "set", "dev", name, "up" if self.values.enabled else "down"])
        if self.values.gateway:
            via = str(IPv4Address(self.values.gateway))
            yield _configure((*on, text), ["ip", "route", "add", "default", "via", via, "dev", name],
                             ["ip", "route", "del", "default", "via", via, "dev", name])

    def _links(self) -> Iterator[Step]:
        """Yield what makes the links: VLANs, and a bridge with its members."""
        for name in map(checked_ifname, self.values.ifname):
            if (match := _VLAN.fullmatch(name)) and int(match["id"]) < 4095:
                yield create_link(["ip", "link", "add", "link", match["parent"], "name", name,
                                   "type", "vlan", "id", match["id"]], ["ip", "link", "delete", name])
        if self.is_bridge and (self.values.ifname or self.values.bridge_empty):
            bridge = self.real_name
            yield create_link(["ip", "link", "add", "name", bridge, "type", "bridge"],
                              ["ip", "link", "delete", bridge])
            for member in self.values.ifname:
                link = ["ip", "link", "set", "dev", member]
                yield _configure((bridge,), [*link, "promisc", "on"], [*link, "promisc", "off"])
                yield Step(Command.PRIO_CONFIG_IFACE, RememberLink(member), on=(bridge,))
                yield _configure((bridge,), [*link, "up"])
                yield _configure((bridge,), [*link, "master", bridge], [*link, "nomaster"])


def checked_ifname(name: str) -> str:
    """Return a link's name if the kernel can take it.

    Raises:
        ConfigError: it cannot.
    """
    if not _IFNAME.fullmatch(name) or name in (".", "..") or name.startswith("-"):
        raise ConfigError(f"cannot use {name!r} as the name of a network link: it must have 1 to 15 bytes, no blanks, "
                          "no '/' and no ':'")
    return name


def create_link(do: list[str], undo: list[str]) -> Step:
    """Return the step that makes a link; links are the first things made and the last ones deleted."""
    return Step(Command.PRIO_CREATE_IFACE, Run(tuple(do)), Run(tuple(undo)), Command.PRIO_DELETE_IFACE)


def _configure(on: tuple[str, ...], do: list[str], undo: list[str] | None = None) -> Step:
    taken_back: Effect | None = Run(tuple(undo)) if undo else None
    return Step(Command.PRIO_CONFIG_IFACE, Run(tuple(do)), taken_back, on=on)
