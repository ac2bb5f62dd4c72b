"""Small questions to the network around this device: each returns what is wrong, or an empty text.

Packets are made and judged by pure functions; the formats are those of RFC 2131 and 2132 (DHCP) and RFC 1035 (DNS).
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

_AGAIN = 2.0
_DHCP = struct.Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST = 0x8000
_RESOLV = Path("/etc/resolv.conf")


def discover(hardware: bytes, transaction: bytes) -> bytes:
    """Return a DHCPDISCOVER of a client with the HARDWARE address that asks for answers by broadcast."""
    head = _DHCP.pack(1, 1, 6, 0, transaction, 0, _BROADCAST, b"", b"", b"", b"", hardware, b"", b"", _COOKIE)
    return head + bytes([53, 1, 1, 55, 2, 1, 3, 255])


def is_offer(packet: bytes, transaction: bytes) -> bool:
    """Whether PACKET is a DHCPOFFER for TRANSACTION."""
    if len(packet) < _DHCP.size or packet[0] != 2 or packet[4:8] != transaction:
        return False
    options, place = packet[_DHCP.size:], 0
    while place + 2 < len(options) and options[place] != 255:
        if options[place] == 0:
            place += 1
            continue
        if options[place] == 53:
            return options[place + 2] == 2
        place += 2 + options[place + 1]
    return False


def dhcp(interface: str, limit: float) -> str:
    """Ask for an address on INTERFACE, as a new client would; none is taken."""
    transaction, hardware = os.urandom(4), b"\x02" + os.urandom(5)  # a locally administered address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST):
            client.setsockopt(socket.SOL_SOCKET, option, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.bind(("", 68))
        packet = discover(hardware, transaction)
        answered = _ask(client, packet, ("255.255.255.255", 67), lambda got: is_offer(got, transaction), limit)
    return "" if answered else f"no DHCP server answers on {interface}"


def query(name: str, number: int) -> bytes:
    """Return a DNS query for the IPv4 address of NAME.

    >>> query("a.bc", 7)[12:].hex(" ")
    '01 61 02 62 63 00 00 01 00 01'
    """
    labels = b"".join(bytes([len(label)]) + label for label in name.strip(".").encode("idna").split(b"."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def resolves(packet: bytes, number: int) -> bool:
    """Whether PACKET answers query NUMBER with at least one record and no error."""
    if len(packet) < 12:
        return False
    given, flags, _, answers = struct.unpack("!4H", packet[:8])
    return given == number and bool(flags & 0x8000) and not flags & 0x000F and answers > 0


def dns(question: str, limit: float) -> str:
    """Resolve ``NAME@SERVER`` (``NAME``: by the system's first server); a server may end with ``#PORT``."""
    name, _, server = question.partition("@")
    address, _, port = (server or _system_server()).partition("#")
    number = int.from_bytes(os.urandom(2))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        packet = query(name, number)
        answered = _ask(client, packet, (address, int(port or 53)), lambda got: resolves(got, number), limit)
    return "" if answered else f"{address} does not resolve {name}"


def _system_server() -> str:
    for line in _RESOLV.read_text().splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            return words[1]
    return "127.0.0.1"


def _ask(
    client: socket.socket, packet: bytes, to: tuple[str, int], good: Callable[[bytes], bool], limit: float
) -> bool:
    """Send PACKET every two seconds until an answer is GOOD or LIMIT seconds are over."""
    end = time.monotonic() + limit
    while (now := time.monotonic()) < end:
        client.sendto(packet, to)
        again = min(end, now + _AGAIN)
        while (left := again - time.monotonic()) > 0:
            client.settimeout(left)
            try:
                if good(client.recv(4096)):
                    return True
            except TimeoutError:
                break
    return False


def tcp(address: str, limit: float) -> str:
    """Connect to ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=limit):
        return ""


def within(limit: float, question: Callable[[], str]) -> str:
    """Ask QUESTION in a thread that is left alone when LIMIT is over: names and pages can take for ever."""
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(question())
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", "") or error
            answers.append(str(getattr(why, "strerror", "") or why))

    asked = threading.Thread(target=ask, daemon=True)
    asked.start()
    asked.join(limit)
    return answers[0] if answers else "no answer"
