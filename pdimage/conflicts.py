"""Finds what the chutes of an image cannot all have, on the board that it is for, before the image is built.

The runtime's own rules decide (paradrop.lib.conflicts, paradrop.lib.config.placing), so what is good here is not
refused on the router. Chutes are looked at in the order of the description; a later one is in the way of an earlier.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from paradrop.lib import conflicts, descriptor
from paradrop.lib import settings as runtime
from paradrop.lib.chutespec import Interface, Specification
from paradrop.lib.config.parties import Interface as Placed
from paradrop.lib.config.placing import Facts, place
from paradrop.lib.errors import ConflictError, DescriptorError, ParadropError
from paradrop.lib.utils.dockerspec import container_name
from pdimage.chutesources import mistake_in
from pdimage.description import ChuteSource, Image
from pdimage.errors import Mistake

_REMEDY = "; change one of them"


def problems(image: Image) -> list[Mistake]:
    """Return every conflict, each at its place in the chute's descriptor. Descriptors with mistakes are left out."""
    chutes = [chute for source in image.chutes if (chute := _chute(source))]
    found: list[Mistake] = []
    for number, chute in enumerate(chutes):
        others = [other.spec for other in chutes[:number]]
        wrong = conflicts.find(chute.spec, others, image.resources.memory, int(_setting(image, "PDFCD_PORT")))
        found += [mistake_in(chute.source, *_parted(text)) for text in [*wrong, *_container_names(chute.spec, others)]]
    return list(dict.fromkeys([*found, *_placing(image, chutes)]))


@dataclass(frozen=True)
class _Chute:
    """A chute of the image and what it asks for."""

    source: ChuteSource
    spec: Specification


def _chute(source: ChuteSource) -> _Chute | None:
    try:
        return _Chute(source, descriptor.parse({"name": source.name, **source.config}, complete=False))
    except DescriptorError:
        return None


def _setting(image: Image, name: str) -> str:
    return image.settings.get(name, str(getattr(runtime, name)))


def _parted(text: str) -> tuple[str, str]:
    path, _, what = text.partition(": ")
    return path, what + _REMEDY


def _container_names(new: Specification, others: list[Specification]) -> Iterator[str]:
    """Yield containers of the same name: the service b of the chute a is the container a-b, as is a chute a-b."""
    taken = {container_name(other, service.name): other.name for other in others if other.name != new.name
             for service in other.services}
    for service in new.services:
        name = container_name(new, service.name)
        if name in taken:
            yield f"{service.path or 'name'}: the container's name {name} belongs to {taken[name]}"


def _placing(image: Image, chutes: list[_Chute]) -> Iterator[Mistake]:
    """Yield the networks that the board has no radio, LAN device or subnet for. What is not known is not looked at."""
    known = {"wifi": image.resources.radios is not None, "lan": image.resources.lan is not None,
             "vlan": image.resources.lan is not None, "wan": False}
    facts = _facts(image)
    taken: list[tuple[str, Placed]] = []
    for chute in chutes:
        for wanted in chute.spec.interfaces:
            if not known[wanted.type]:
                continue
            try:
                placed = place(chute.spec.name, _only(chute.spec, wanted), (), replace(facts, taken=tuple(taken)))
                taken += [(chute.spec.name, one) for one in placed]
            except ConflictError as error:
                yield from (mistake_in(chute.source, *_parted(text)) for text in error.mistakes)
            except ParadropError as error:
                text = f"{error.message}; the image's resources list what the board has"
                yield mistake_in(chute.source, wanted.path, text)


def _only(spec: Specification, wanted: Interface) -> Specification:
    """Return a chute with one interface of what it asks for, so that one that can't be had does not hide the next."""
    service = spec.service_of(wanted)
    return replace(spec, services=(replace(service, interfaces=(wanted,)),))


def _facts(image: Image) -> Facts:
    """Return what is known of the board."""
    radios, lan = image.resources.radios or {}, image.resources.lan or ()
    return Facts(
        devices={"wifi": list(radios), "lan": list(lan), "wan": []}, radios=radios, links={name: name for name in lan},
        pools=(_setting(image, "DYNAMIC_NETWORK_POOL"), _setting(image, "ALTERNATE_NETWORK_POOL")),
        prefix=int(_setting(image, "CHUTE_PREFIX_SIZE")),
        monitor_allowed=runtime.parseValue(_setting(image, "ALLOW_MONITOR_MODE")) is True)
