"""Names what a container is built from, so that one that was built before need not be asked of the engine again.

The name covers all files of the directory, the Dockerfile, the names of chute and service, which become labels, and the
base images by their ids. As the engine's own cache does, it takes a command to do the same each time. Where something
else comes from outside (``ADD`` of an address, a base that is no plain name, or not here), there is no name, and the
engine decides.
"""

import hashlib
import re
from collections.abc import Callable, Iterator

from paradrop.lib.utils.dockerbuild import Source
from pdimage import record
from pdimage.merge import walk

_LINE = re.compile(r"^[ \t]*(FROM|COPY|ADD)[ \t]+(.*)$", re.IGNORECASE | re.MULTILINE)
_STAGE = re.compile(r"[ \t]AS[ \t]+(\S+)[ \t]*$", re.IGNORECASE)
_OUTSIDE = re.compile(r"[a-z+]+://|\bgit@", re.IGNORECASE)
_REFERENCE = re.compile(r"[a-z0-9][\w./:@-]*")


def key(source: Source, image_id: Callable[[str], str | None], time: int) -> str | None:
    """Return the name of what SOURCE is built from, None if that can't be told.

    IMAGE_ID gives the id of a base image, None if the engine does not have it. TIME is the latest that the image notes.
    """
    if source.reference is not None:
        return None
    facts = [source.chute, source.service, str(source.dockerfile_path), str(time)]
    text = source.dockerfile or b""
    if source.directory is not None:
        dockerfile = source.directory / (source.dockerfile_path or "Dockerfile")
        text = dockerfile.read_bytes() if dockerfile.is_file() else b""
        facts.append(record.digest(source.directory))
        facts += [f"{mode:o} {path}" for path, mode in sorted(walk(source.directory))]
    bases = list(_bases(text.decode(errors="replace")))
    ids = [image_id(base) if base else None for base in bases]
    if not ids or None in ids:
        return None
    facts += [hashlib.sha256(text).hexdigest(), *map(str, ids)]
    return hashlib.sha256("\0".join(facts).encode(errors="surrogateescape")).hexdigest()


def _bases(dockerfile: str) -> Iterator[str]:
    """Yield the images that a Dockerfile begins with or copies from, an empty text for what is not plain.

    >>> list(_bases("FROM a:1 AS one\\nFROM --platform=linux/amd64 b\\nCOPY --from=one /x /y\\nCOPY --from=c / /\\n"))
    ['a:1', 'b', 'c']
    >>> list(_bases("FROM $BASE\\nADD https://example.org/x /x\\n"))
    ['', '']
    """
    stages: set[str] = set()
    for instruction, rest in _LINE.findall(dockerfile):
        options = [word for word in rest.split() if word.startswith("--")]
        words = [word for word in rest.split() if not word.startswith("--")]
        if instruction.upper() == "FROM":
            wanted = words[0] if words else ""
        elif _OUTSIDE.search(rest):
            wanted = ""
        else:
            wanted = next((word.removeprefix("--from=") for word in options if word.startswith("--from=")), None)
        if wanted is not None and wanted not in stages and not wanted.isdecimal():
            yield wanted if _REFERENCE.fullmatch(wanted) else ""
        if stage := _STAGE.search(rest):
            stages.add(stage[1])
