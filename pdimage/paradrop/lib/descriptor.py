"""Chute descriptors: reading what users write.

Two forms are understood. The one of config.yaml (2015), with ``net``, ``firewall``, ``host_config`` and one
Dockerfile, and the newer one of paradrop.yaml, with ``services``; having ``services`` decides. Either becomes a
chutespec.Specification, whose document() is the newer form.
"""

import marshal
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from paradrop.lib import descriptor2015, descriptorservices
from paradrop.lib.checks import Fields
from paradrop.lib.chutespec import Interface, Service, Specification
from paradrop.lib.errors import DescriptorError

__all__ = ["Interface", "Service", "Specification", "convert", "mistakes", "parse"]


def parse(source: Mapping[str, Any], complete: bool = True) -> Specification:
    """Return what a descriptor says.

    Args:
        source: the content of the file, or of a request's ``config``. It is not changed.
        complete: False does not ask for what the chute is built from; its networks and rules can do without.

    Raises:
        DescriptorError: with all mistakes, each as ``path: what is wrong``.
    """
    found, wrong = _read(source, complete)
    if wrong:
        raise DescriptorError(wrong)
    return found


def mistakes(source: Mapping[str, Any]) -> list[str]:
    """Return all mistakes of a descriptor, each as ``path: what is wrong``; none means that it can be used."""
    return list(_read(source, True)[1])


def convert(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a descriptor in the newer form.

    Raises:
        DescriptorError: as parse does.
    """
    return parse(source).document()


Reading = tuple[Specification, list[str]]


def _read(source: Mapping[str, Any], complete: bool) -> Reading:
    try:
        content = marshal.dumps(cast(Any, source), 2)
    except ValueError:  # it holds more than JSON can, such as the dates that YAML makes
        return _read_anew(source, complete)
    return _read_once(content, complete)


@lru_cache(maxsize=256)
def _read_once(content: bytes, complete: bool) -> Reading:
    """Read a descriptor that was made bytes, once: each update looks at the descriptors of all chutes."""
    return _read_anew(marshal.loads(content), complete)


def _read_anew(source: Mapping[str, Any], complete: bool) -> Reading:
    wrong: list[str] = []
    top = Fields(source, "", wrong)
    if "services" in top:
        return descriptorservices.read(top), wrong
    return descriptor2015.read(top, complete), wrong
