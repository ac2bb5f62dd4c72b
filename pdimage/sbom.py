"""Writes what an image carries as ``.fussy/sbom.cdx.json``: CycloneDX 1.6 JSON (ECMA-424).

The image is the subject; the packages in a container are listed inside it. The same components give the same bytes:
the serial number comes from the content, and there is a time only if ``SOURCE_DATE_EPOCH`` gives one.
"""

import json
import os
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component as Listed
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_expression
from packageurl import PackageURL

from pdimage.components import Component, Kind

PATH = ".fussy/sbom.cdx.json"
_TYPES: dict[Kind, ComponentType] = {
    "python": ComponentType.LIBRARY, "debian": ComponentType.LIBRARY, "alpine": ComponentType.LIBRARY,
    "container": ComponentType.CONTAINER, "own": ComponentType.APPLICATION}
# Names the serial numbers of this program's lists apart from other UUIDs of the same text (RFC 9562, version 5).
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:pdimage:sbom")


class Named(Protocol):
    """Whatever has a name and a version, as :class:`pdimage.description.Image`."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


def write(tree: Path, image: Named, components: Iterable[Component]) -> Path:
    """Write the list of COMPONENTS of IMAGE into TREE and return its file."""
    file = tree / PATH
    file.parent.mkdir(exist_ok=True)
    file.write_text(render(image, components, os.environ.get("SOURCE_DATE_EPOCH", "")))
    return file


def render(image: Named, components: Iterable[Component], seconds: str = "") -> str:
    """Return the list as JSON; SECONDS is the time to state (Unix time), none if empty."""
    bom = Bom(metadata=BomMetaData(component=Listed(
        name=image.name, version=image.version, type=ComponentType.FIRMWARE, bom_ref=f"{image.name}@{image.version}")))
    _fill(bom, tuple(sorted(components)))
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library puts the present time and a random number where nothing else is given.
    del document["metadata"]["timestamp"], document["serialNumber"]
    if seconds.isdecimal():
        document["metadata"]["timestamp"] = datetime.fromtimestamp(int(seconds), UTC).isoformat()
    document["serialNumber"] = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True)).urn
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _fill(bom: Bom, components: Sequence[Component]) -> None:
    """Put COMPONENTS and what they need into BOM: what is inside another below it, the rest below the image."""
    listed = {reference(component): _listed(component) for component in components}
    by_purl = {(component.inside, component.purl): listed[reference(component)] for component in components}
    top = []
    for component in components:
        holder = by_purl.get(("", component.inside)) if component.inside else None
        if holder is None:
            bom.components.add(listed[reference(component)])
            top.append(listed[reference(component)])
        else:
            holder.components.add(listed[reference(component)])
    for component in components:
        needed = [by_purl[component.inside, purl] for purl in component.requires
                  if (component.inside, purl) in by_purl]
        bom.register_dependency(listed[reference(component)], needed)
    if bom.metadata.component:
        bom.register_dependency(bom.metadata.component, top)


def _listed(component: Component) -> Listed:
    return Listed(
        name=component.name, version=component.version, type=_TYPES[component.kind], bom_ref=reference(component),
        purl=PackageURL.from_string(component.purl) if component.purl else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=component.sha256)] if component.sha256 else None,
        licenses=licences(component.licences),
        properties=[Property(name="pdimage:kind", value=component.kind),
                    *(Property(name="pdimage:licence-text", value=text) for text in component.texts)])


def reference(component: Component) -> str:
    """Return what names COMPONENT within the list."""
    own = component.purl or f"{component.kind}:{component.name}@{component.version}"
    return f"{component.inside}#{own}" if component.inside else own


def licences(stated: Sequence[str]) -> list[License]:
    """Return licences as CycloneDX has them: any number of names, or a single expression."""
    make = LicenseFactory().make_from_string
    found = [make(text, license_acknowledgement=LicenseAcknowledgement.DECLARED) for text in dict.fromkeys(stated)]
    if len(found) < 2 or not any(isinstance(licence, LicenseExpression) for licence in found):
        return found
    if all(is_expression(text) for text in stated):
        joined = " AND ".join(f"({text})" if " " in text else text for text in dict.fromkeys(stated))
        return [LicenseExpression(joined, acknowledgement=LicenseAcknowledgement.DECLARED)]
    return [DisjunctiveLicense(name=text, acknowledgement=LicenseAcknowledgement.DECLARED)
            for text in dict.fromkeys(stated)]
