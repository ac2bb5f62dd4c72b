from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrop.lib.config.pool import NetworkPool, NumericPool, ResourcePool
from paradrop.lib.errors import ParadropError


def test_released_values_come_first_then_those_never_used() -> None:
    pool = ResourcePool(iter(range(4)), 4)
    assert [pool.next(), pool.next()] == [0, 1]
    pool.release(1)
    pool.release(0)
    assert [pool.next(), pool.next(), pool.next(), pool.next()] == [1, 0, 2, 3]
    with pytest.raises(ParadropError, match="No items left in pool"):
        pool.next()
    pool.release(2)
    assert pool.next() == 2


def test_reservations() -> None:
    pool = NumericPool(1)
    pool.reserve(0)
    pool.reserve(0, strict=False)
    with pytest.raises(ParadropError, match="Trying to reserve a used item"):
        pool.reserve(0)
    with pytest.raises(ParadropError, match="Trying to release unreserved item"):
        pool.release(1)
    assert [pool.next() for _ in range(15)] == list(range(1, 16))


def test_numbers_from_a_start() -> None:
    pool = NumericPool(1, start=14)
    assert [pool.next() for _ in range(4)] == [14, 15, 0, 1]


def test_networks() -> None:
    pool = NetworkPool("192.168.128.0/17")
    assert pool.numValues == 128
    assert [str(pool.next()), str(pool.next())] == ["192.168.128.0/24", "192.168.129.0/24"]
    pool.release("192.168.128.0/24")
    assert str(pool.next()) == "192.168.128.0/24"
    assert str(NetworkPool("10.0.0.0/255.255.0.0", start=255).next()) == "10.0.255.0/24"
    with pytest.raises(ParadropError, match="Invalid subnetSize"):
        NetworkPool("192.168.1.0/24", 16)


networks = st.builds(lambda address, size: IPv4Network((address, size), strict=False),
                     st.integers(0x0A000000, 0x0A00FFFF), st.integers(14, 30))


@given(st.lists(networks, max_size=8), st.integers(20, 28), st.integers(0, 10**6))
def test_a_network_of_the_pool_overlaps_no_reserved_one(reserved: list[IPv4Network], size: int, start: int) -> None:
    pool = NetworkPool("10.0.0.0/18", size, start)
    for network in reserved:
        pool.reserve(network, strict=False)
    whole = IPv4Network("10.0.0.0/18")
    free = [one for one in whole.subnets(new_prefix=size) if not any(one.overlaps(other) for other in reserved)]
    given_out = []
    for _ in free[:5]:
        given_out.append(pool.next())
        assert given_out[-1] in free
    assert len(set(given_out)) == len(given_out)
    if not free:
        with pytest.raises(ParadropError):
            pool.next()
