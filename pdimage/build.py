"""``pdimage build``: assembles the tree of an image (layout: README "Images").

It is made beside its place, under a hidden name, and gets its name when it is complete: an error, a kill or a power
cut leaves what was there before. The same description and inputs give the same tree, byte for byte, whenever and
wherever it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fussy import disk
from fussy.errors import SystemSetup
from pdimage import programs, pythonparts, releasefiles, scratch, templates, treefiles
from pdimage.check import overlay_files, template_variables
from pdimage.components import Component
from pdimage.description import Image

# Told in a few words what is being done.
Progress = Callable[[str], object]
# What tells a tree that we built, and may replace, from a directory with somebody's work.
_MARK = ".fussy/hooks.conf"


@dataclass(frozen=True)
class Built:
    """A complete tree and what is in it."""

    tree: Path
    image: Image
    components: tuple[Component, ...]


def build(image: Image, output: Path, *, cache: Path, progress: Progress = lambda step: None) -> Built:
    """Build IMAGE, which :func:`pdimage.check.check` found good, as the directory OUTPUT.

    CACHE is a directory for what the next build can use again, named by content; it may be deleted at any time.

    :raises SystemSetup: OUTPUT is there and is no tree of ours, or a tool is missing
    :raises pdimage.errors.PartFailed: a part could not be built
    """
    output = output.absolute()
    if output.exists() and not (output / _MARK).is_file() and not _is_empty(output):
        raise SystemSetup(f"cannot build {output}: it is there and is no tree of pdimage; name another with -o")
    cache.mkdir(parents=True, exist_ok=True)
    with scratch.directory(output.parent, output.name) as workshop:
        tree = workshop / "tree"
        tree.mkdir(mode=0o755)
        components = _assemble(image, tree, cache, progress)
        progress("normalising")
        modes = {template.target: template.mode for template in image.templates}
        treefiles.normalise(tree, treefiles.epoch(), modes)
        if output.exists():
            disk.exchange(tree, output)
        else:
            tree.rename(output)
    return Built(output, image, components)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _assemble(image: Image, tree: Path, cache: Path, progress: Progress) -> tuple[Component, ...]:
    """Put everything into TREE: what the platform needs, chutes, then what the user adds, which wins."""
    platform = image.platform
    own = _own_packages(image)
    progress("Python packages")
    components = list(pythonparts.install(
        tree, requirements=platform.requirements, wheels=platform.wheels, own=own, cache=cache / "python",
        progress=progress))
    programs.write(tree, own)
    progress("overlay and templates")
    for directory in image.overlay:
        for item in overlay_files(directory):
            if item.source.is_dir() and not item.source.is_symlink():
                treefiles.make_directory(tree, item.target)
            else:
                treefiles.copy(tree, item.target, item.source)
    for template in image.templates:
        text = templates.render_file(template.source, template_variables(image))
        treefiles.write(tree, template.target, text, template.mode)
    progress("release")
    releasefiles.write(tree, image)
    return tuple(sorted(components))


def _own_packages(image: Image) -> tuple[str, ...]:
    """Return which of our packages the image carries; the runtime's command stands on the installer's package."""
    if image.platform.paradrop:
        return ("fussy", "paradrop")
    return ("fussy",) if image.platform.fussy else ()
