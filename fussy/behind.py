"""A connection through this router, from a client of its own that stands on one of its bridges: does NAT work?

The client is a network namespace with one end of a virtual cable, whose other end is plugged into the bridge. It has an
address there, the bridge's own as its gateway, and connects to somewhere beyond: what comes back has gone through
forwarding, filters and address translation. The namespace belongs to one thread and ends with it, and the cable with
the namespace, also when the process is killed.
"""

import ctypes
import ipaddress
import json
import os
import re
import secrets
import subprocess

from fussy import probes

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h
_QUESTION = re.compile(r"(?P<to>\S+:\d+) from (?P<address>[\d.]+) iif (?P<bridge>\S+)")


def nat(question: str, limit: float) -> str:
    """Connect to ``HOST:PORT from ADDRESS iif BRIDGE``; return what is wrong, or an empty text.

    ADDRESS (IPv4) is free in the bridge's network. Ask it in a thread of its own, which is left in the namespace.

    :raises OSError: it could not be connected, or this process may not make a namespace
    :raises ValueError: that is no such question, or the bridge is none or has no address in that network
    """
    match = _QUESTION.fullmatch(question)
    if not match:
        raise ValueError(f"{question!r} is not HOST:PORT from ADDRESS iif BRIDGE")
    bridge = match["bridge"]
    gateway, width = _gateway(bridge, match["address"])
    cable = f"fussy{secrets.token_hex(4)}"
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _NEW_NETWORK)
        away = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", home, _NEW_NETWORK)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "lan0", "netns", f"/proc/{os.getpid()}/fd/{away}")
            _ip("link", "set", cable, "master", bridge, "up")
            _call("setns", away, _NEW_NETWORK)
        finally:
            os.close(away)
        _ip("address", "add", f"{match['address']}/{width}", "dev", "lan0")
        _ip("link", "set", "lan0", "up")
        _ip("route", "add", "default", "via", gateway)
        return probes.tcp(match["to"], limit)
    finally:
        os.close(home)


def _gateway(bridge: str, address: str) -> tuple[str, int]:
    """Return the router's address in the network of ADDRESS, and how many bits that network has."""
    link = json.loads(_ip("-json", "-details", "address", "show", "dev", bridge))[0]
    if link.get("linkinfo", {}).get("info_kind") != "bridge":
        raise ValueError(f"{bridge} is no bridge")
    for one in link["addr_info"]:
        own = ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}")
        if ipaddress.ip_address(address) in own.network:
            return str(own.ip), own.network.prefixlen
    raise ValueError(f"{bridge} has no address in the network of {address}")


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _ip(*words: str) -> str:
    """Run ip(8) in the namespace of this thread."""
    done = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip() or f"ip {words[0]} fails")
    return done.stdout
