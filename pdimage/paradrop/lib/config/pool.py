"""Pools of values that are given out one at a time: numbers, networks.

A pool lives for one decision: network.py makes it, reserves in it what the chutes that exist have, and takes the next
value. So nothing can leak, and nothing has to be remembered besides the chutes.
"""

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any

from paradrop.lib.errors import ParadropError

IPv4Network = ipaddress.IPv4Network


class ResourcePool:
    """Values, each of which is free or used.

    Args:
        values: all of them, in the order in which they are given out.
        numValues: how many they are.
    """

    def __init__(self, values: Iterable[Any], numValues: int) -> None:
        self.numValues = numValues
        self.used: set[Any] = set()
        self._values = cycle(values)
        self._released: deque[Any] = deque()

    def next(self) -> Any:
        """Return a free value and mark it as used: those released first, in their order, then those never used.

        Raises:
            ParadropError: all are used.
        """
        while self._released:
            if self._free(value := self._released.popleft()):
                self.used.add(value)
                return value
        for value in islice(self._values, self.numValues):
            if self._free(value):
                self.used.add(value)
                return value
        raise ParadropError("No items left in pool")

    def reserve(self, item: Any, strict: bool = True) -> None:
        """Mark an item as used.

        Raises:
            ParadropError: it is used already, if strict.
        """
        if strict and not self._free(item):
            raise ParadropError(f"Trying to reserve a used item: {item}")
        self.used.add(item)

    def release(self, item: Any) -> None:
        """Mark an item as free.

        Raises:
            ParadropError: it is not used.
        """
        if item not in self.used:
            raise ParadropError(f"Trying to release unreserved item: {item}")
        self.used.remove(item)
        self._released.append(item)

    def _free(self, value: Any) -> bool:
        return value not in self.used


class NetworkPool(ResourcePool):
    """Subnets of one network.

    A subnet is free if it overlaps no reserved network, whatever the size of either.

    Args:
        network: as CIDR or with a netmask.
        subnetSize: prefix length of the subnets.
        start: number of the subnet to begin with; numbers beyond the last begin anew.

    Raises:
        ParadropError: the network is smaller than a subnet.
    """

    def __init__(self, network: str | IPv4Network, subnetSize: int = 24, start: int = 0) -> None:
        whole = IPv4Network(network)
        if not whole.prefixlen <= subnetSize <= 32:
            raise ParadropError(f"Invalid subnetSize {subnetSize} for network {network}")
        count = 2 ** (subnetSize - whole.prefixlen)
        super().__init__(_Subnets(whole, subnetSize, start, count), count)

    def reserve(self, item: str | IPv4Network, strict: bool = True) -> None:
        """Mark a network as used; see ResourcePool."""
        super().reserve(IPv4Network(item), strict)

    def release(self, item: str | IPv4Network) -> None:
        """Mark a network as free; see ResourcePool."""
        super().release(IPv4Network(item))

    def _free(self, value: IPv4Network) -> bool:
        return not any(value.overlaps(used) for used in self.used)


class NumericPool(ResourcePool):
    """The numbers that have so many hexadecimal digits or fewer: 0 to 16^digits - 1.

    Args:
        digits: how many.
        start: the number to begin with.
    """

    def __init__(self, digits: int = 4, start: int = 0) -> None:
        count = 16 ** digits
        super().__init__(((start + step) % count for step in range(count)), count)


class _Subnets:
    """The subnets of a network from one of them on, made one by one: there may be many."""

    def __init__(self, whole: IPv4Network, size: int, start: int, count: int) -> None:
        self.whole, self.size, self.start, self.count = whole, size, start, count

    def __iter__(self) -> Iterator[IPv4Network]:
        first = int(self.whole.network_address)
        for step in range(self.count):
            number = (self.start + step) % self.count
            yield IPv4Network((first + (number << (32 - self.size)), self.size))
