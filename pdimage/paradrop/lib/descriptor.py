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


def parse(source: Mapping[str, Any]) -> Specification:
    """Return what a descriptor says.

    Args:
        source: the content of the file, or of a request's ``config``. It is not changed.

    Raises:
        DescriptorError: with all mistakes, each as ``path: what is wrong``.
    """
    try:
        content = marshal.dumps(cast(Any, source), 2)
    except ValueError:  # it holds more than JSON can, such as the dates that YAML makes
        found, wrong = _read(source)
    else:
        found, wrong = _read_once(content)
    if wrong:
        raise DescriptorError(wrong)
    return found


def mistakes(source: Mapping[str, Any]) -> list[str]:
    """Return all mistakes of a descriptor, each as ``path: what is wrong``; none means that it can be used."""
    return _read(source)[1]


def convert(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a descriptor in the newer form.

    Raises:
        DescriptorError: as parse does.
    """
    return parse(source).document()


def networks(source: Mapping[str, Any]) -> tuple[Interface, ...]:
    """Return the interfaces of a descriptor that may be incomplete, as that of a chute to be stopped is: none then.

    Raises:
        DescriptorError: there are networks and they are wrong.
    """
    return parse(source).interfaces if source.get("services") or _config(source).get("net") else ()


@lru_cache(maxsize=256)
def _read_once(content: bytes) -> tuple[Specification, list[str]]:
    """Read a descriptor that was made bytes, once: each update looks at the descriptors of all chutes."""
    return _read(marshal.loads(content))


def _config(source: Mapping[str, Any]) -> Mapping[str, Any]:
    config = source.get("config")
    return config if isinstance(config, Mapping) else source


def _read(source: Mapping[str, Any]) -> tuple[Specification, list[str]]:
    wrong: list[str] = []
    top = Fields(source, "", wrong)
    found = descriptorservices.read(top) if "services" in top else descriptor2015.read(top)
    return found, wrong
