"""Who takes part in a change of the configuration: the update, its chutes, the store, and what is decided for them."""

from typing import NotRequired, Protocol, TypedDict

from paradrop.lib.chute import Chute

# Updates after which a chute has no networks
WITHOUT_NETWORKS = ("stop", "delete")


class ChuteStore(Protocol):
    """Where the chutes of the router are."""

    def getChuteList(self) -> list[Chute]:
        """Return all chutes."""


class Update(Protocol):
    """A change of one chute from ``old`` (None if it is new) to ``new``."""

    @property
    def name(self) -> str: ...
    @property
    def updateType(self) -> str: ...
    @property
    def old(self) -> Chute | None: ...
    @property
    def new(self) -> Chute: ...
    @property
    def chuteStor(self) -> ChuteStore: ...


class Dhcp(TypedDict):
    """What a network's clients are given. ``relay``: by servers elsewhere."""

    lease: str | None
    start: int | None
    limit: int | None
    dns: list[str]
    relay: list[str]


class Interface(TypedDict):
    """One interface of a chute, as the cache key networkInterfaces lists it. All values are plain, so it can be stored.

    ::

        clients ~~ access point externalIntf, or link -- bridge, externalIpaddr -- internalIntf, internalIpaddr
                                                        (router)                  (chute)

    externalIntf is also what the sections of the UCI files are called by. The chute's end is a port of the bridge, not
    a macvlan child of externalIntf: the router could not reach such a child, and redirects go from the router to the
    chute.
    """

    name: str
    service: str
    netType: str
    internalIntf: str
    device: str
    externalIntf: str
    mode: NotRequired[str]
    link: NotRequired[str]
    bridge: NotRequired[str]
    extIntfPrefix: NotRequired[str]
    extIntfNumber: NotRequired[int]
    subnet: NotRequired[str]
    netmask: NotRequired[str]
    externalIpaddr: NotRequired[str]
    internalIpaddr: NotRequired[str]
    ipaddrWithPrefix: NotRequired[str]
    ssid: NotRequired[str]
    key: NotRequired[str]
    encryption: NotRequired[str]
    options: NotRequired[dict[str, str]]
    dhcp: NotRequired[Dhcp]


def others(store: ChuteStore, name: str | None) -> list[Chute]:
    """Return all chutes but the one of that name."""
    return [chute for chute in store.getChuteList() if chute.name != name]


def interfaces(chute: Chute | None) -> list[Interface]:
    """Return the interfaces that a chute has, none if it has no networks at present."""
    return (chute.getCache("networkInterfaces") or []) if chute else []


def reserved(chute: Chute | None) -> list[Interface]:
    """Return the interfaces that a chute has, or had when it was stopped: they stay its own."""
    return interfaces(chute) or ((chute.getCache("networkReservations") or []) if chute else [])
