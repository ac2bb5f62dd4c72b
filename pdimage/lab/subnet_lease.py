"""Leases of subnets, so that two environments on one machine never have the same.

Only /24 networks are leased, 192.168.MIN_SUBNET.0 to 192.168.MAX_SUBNET.0. A lease is a file in LEASE_DIR, JSON as real
Lago writes it, so that both can share a machine::

    ["/path/to/prefix/uuid", "<content of that file when the lease was taken>"]

A lease whose uuid file is gone, or has other content, is stale: whoever needs a subnet takes it over.
"""

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from fussy.errors import SystemSetup
from pdimage.lab import config, dirlock

LEASE_DIR = "/var/lib/lago/subnets/"
LOCK_FILE = "/var/lib/lago/subnets/leases.lock"
MIN_SUBNET = 200
MAX_SUBNET = 209

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class NoSubnet(SystemSetup):
    """Every subnet is leased to an environment that is there."""


def acquire(uuid_path: str | Path, subnet: str | None = None) -> str:
    """Lease a free subnet for the prefix whose uuid file is UUID_PATH; return the address of its gateway.

    With SUBNET (any address in it) it must be that one.

    :raises NoSubnet: all are leased (real Lago fails with a TypeError)
    """
    index = _acquire(uuid_path, int(subnet.split(".")[2]) if subnet else None)
    if index is None and subnet:
        raise NoSubnet(f"cannot lease {subnet}: another environment has it ({_directory()} names it); leave gw out to "
                       "take whatever is free")
    if index is None:
        raise NoSubnet(f"cannot lease a subnet: all of 192.168.{MIN_SUBNET}.0 to 192.168.{MAX_SUBNET}.0 are in use; "
                       f"destroy environments that are not needed ({_directory()} names them)")
    return f"192.168.{index}.1"


def release(subnet: str) -> None:
    """Give the lease of SUBNET (any address in it) back. Nothing happens if it is not leased."""
    _release(int(subnet.split(".")[2]))


def release_if_owned(subnet: str, uuid_path: str | Path) -> None:
    """Give the lease of SUBNET back if it is that of the prefix whose uuid file is UUID_PATH."""
    if _lease_owned(_lease(int(subnet.split(".")[2])), uuid_path):
        release(subnet)


def is_leasable_subnet(subnet: str) -> bool:
    """Tell whether SUBNET (any address in it) is inside the range that leases are from.

    >>> is_leasable_subnet("192.168.200.0"), is_leasable_subnet("192.168.1.1"), is_leasable_subnet("10.0.200.1")
    (True, False, False)
    """
    found = re.fullmatch(r"192\.168\.(\d{1,3})(\.\d{1,3})?(/24)?", subnet)
    return found is not None and MIN_SUBNET <= int(found[1]) <= MAX_SUBNET


def _directory() -> Path:
    return Path(config.text("lease_dir", LEASE_DIR))


def _lease(index: int) -> Path:
    return _directory() / f"{index}.lease"


def _validate_lease_dir_present(func: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorator that makes sure the directory of leases is there."""

    @functools.wraps(func)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            _directory().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemSetup(f"cannot lease a subnet: {_directory()}: {error.strerror}; be root, or name another "
                              "directory in PDIMAGE_LAB_LEASE_DIR") from error
        return func(*args, **kwargs)

    return wrapped


def _locked(func: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorator that makes sure nobody else changes the leases meanwhile."""

    @functools.wraps(func)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with dirlock.held_file(_directory() / Path(LOCK_FILE).name):
            return func(*args, **kwargs)

    return wrapped


@_validate_lease_dir_present
@_locked
def _acquire(uuid_path: str | Path, wanted: int | None = None) -> int | None:
    """Lease a free subnet (or number WANTED); return the third number of its addresses, None if none is free."""
    for index in range(MIN_SUBNET, MAX_SUBNET + 1) if wanted is None else (wanted,):
        if not _lease_valid(_lease(index)):
            _take_lease(_lease(index), uuid_path)
            return index
    return None


@_validate_lease_dir_present
@_locked
def _release(index: int) -> None:
    """Give back the lease of the subnet whose addresses have INDEX as third number."""
    _lease(index).unlink(missing_ok=True)


def _take_lease(path: str | Path, uuid_path: str | Path) -> None:
    """Write the lease PATH for the prefix whose uuid file is UUID_PATH."""
    uuid = Path(uuid_path).absolute()
    temporary = Path(f"{path}~")
    temporary.write_text(json.dumps([str(uuid), uuid.read_text(encoding="utf-8").strip()]), encoding="utf-8")
    os.replace(temporary, path)


def _lease_valid(path: str | Path) -> bool:
    """Tell whether the prefix that has the lease PATH is still there; False if there is no such lease."""
    owner = _owner(path)
    try:
        return owner is not None and Path(owner[0]).read_text(encoding="utf-8").strip() == owner[1]
    except OSError:
        return False


def _lease_owned(path: str | Path, current_uuid_path: str | Path) -> bool:
    """Tell whether the lease PATH is of the prefix whose uuid file is CURRENT_UUID_PATH, and in the same place."""
    uuid = Path(current_uuid_path).absolute()
    return _owner(path) == (str(uuid), uuid.read_text(encoding="utf-8").strip())


def _owner(path: str | Path) -> tuple[str, str] | None:
    """Return the uuid file and uuid in a lease; None if there is no lease, or what is there is none."""
    try:
        uuid_path, uuid = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(uuid_path), str(uuid)
