"""Writes who may do what with what an image carries: ``.fussy/licences.txt``, for people."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pdimage.components import Component, Kind
from pdimage.sbom import Named

PATH = ".fussy/licences.txt"
_TITLES: dict[Kind, str] = {"own": "The firmware's own parts", "python": "Python packages",
                            "debian": "Debian packages", "container": "Containers",
                            "alpine": "Alpine packages"}


def write(tree: Path, image: Named, components: Iterable[Component]) -> Path:
    """Write the licences of COMPONENTS into TREE and return the file."""
    file = tree / PATH
    file.parent.mkdir(exist_ok=True)
    file.write_text(render(image, components))
    return file


def render(image: Named, components: Iterable[Component]) -> str:
    """Return the licences of COMPONENTS as text, sorted, with the places of their texts in the release."""
    listed = sorted(components)
    holders = {component.purl: component.name for component in listed if component.kind == "container"}
    return "\n".join([f"Licences of {image.name} {image.version}", "",
                      "Paths are those in the release. A licence is given as its part states it.", "",
                      *(line for kind in _TITLES for line in _section(kind, listed, holders))])


def _section(kind: Kind, components: Iterable[Component], holders: dict[str, str]) -> Iterator[str]:
    found = [component for component in components if component.kind == kind]
    if not found:
        return
    yield from (_TITLES[kind], "=" * len(_TITLES[kind]), "")
    for component in found:
        where = f" (in {holders.get(component.inside, component.inside)})" if component.inside else ""
        yield f"{component.name} {component.version}{where}"
        yield f"    {'; '.join(component.licences) or 'states no licence'}"
        yield from (f"    text: {text}" for text in component.texts)
    yield ""
