"""Helper functions of the HTTP face: addresses, as text and in binary."""

import ipaddress

from paradrop.lib.api.pdrest import Request


def getIP(req: Request) -> str:
    """Return the address of the client.

    Behind a proxy on this router that is what the proxy says in ``X-Real-IP``. Anybody can write that header, so it
    counts only in connections that come from the router itself.
    """
    peer, told = req.getClientIP(), req.getHeader("X-Real-IP")
    if told and isLoopback(peer):
        try:
            return str(ipaddress.ip_address(told.strip()))
        except ValueError:
            return peer
    return peer


def isLoopback(address: str) -> bool:
    """Return True for an address of the router's own loopback interface.

    >>> [isLoopback(text) for text in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "no address")]
    [True, True, True, False, False]
    """
    return addressWithin(address, ["127.0.0.0/8", "::1/128"])


def addressWithin(address: str, networks: list[str]) -> bool:
    """Return True if the address, or the IPv4 address mapped into it, belongs to one of the networks."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in ipaddress.ip_network(network, strict=False) for network in networks)


def unpackIPAddr(ip: str) -> int:
    """Return an IPv4 address as a number, so that ``address & netmask`` works.

    Raises:
        ValueError: it is not an IPv4 address.

    >>> hex(unpackIPAddr("10.0.0.1"))
    '0xa000001'
    """
    return int(ipaddress.IPv4Address(ip))


def unpackIPAddrWithSlash(net: str) -> tuple[int, int]:
    """Return "address/bits" as two numbers, address and netmask.

    Raises:
        ValueError: it is not an IPv4 address with a number of bits.

    >>> [hex(number) for number in unpackIPAddrWithSlash("1.2.3.4/16")]
    ['0x1020304', '0xffff0000']
    """
    interface = ipaddress.IPv4Interface(net)
    return int(interface.ip), int(interface.netmask)


def addressInNetwork(ipaddr: int, netTuple: tuple[int, int]) -> bool:
    """Return True if an unpacked address belongs to the network of an unpacked (address, netmask).

    >>> addressInNetwork(unpackIPAddr("1.2.9.9"), unpackIPAddrWithSlash("1.2.3.4/16"))
    True
    """
    network, mask = netTuple
    return ipaddr & mask == network & mask


def calcDottedNetmask(mask: int) -> str:
    """Return the netmask of a number of bits in quad-dot form.

    Raises:
        ValueError: not 0 to 32.

    >>> calcDottedNetmask(24)
    '255.255.255.0'
    """
    if not 0 <= mask <= 32:
        raise ValueError(f"cannot make a netmask of {mask} bits: 0 to 32 are possible")
    return str(ipaddress.IPv4Address((0xFFFFFFFF << (32 - mask)) & 0xFFFFFFFF))
