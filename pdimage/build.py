"""``pdimage build``: assembles the tree of an image (layout: pdimage/images/README.rst).

It is made beside its place, under a hidden name, and gets its name when it is complete: an error, a kill or a power
cut leaves what was there before. The same description and inputs give the same tree, byte for byte, whenever and
wherever it is built.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fussy import disk
from fussy.errors import SystemSetup
from pdimage import (
    containers,
    contents,
    debianparts,
    licences,
    programs,
    pythonparts,
    record,
    releasefiles,
    sbom,
    scratch,
    templates,
    treefiles,
)
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


def build(
    image: Image, output: Path, *, cache: Path, engine: str | None = None, progress: Progress = lambda step: None,
) -> Built:
    """Build IMAGE, which :func:`pdimage.check.check` found good, as the directory OUTPUT.

    CACHE is a directory for what the next build can use again, named by content; it may be deleted at any time.
    ENGINE is the Docker engine that builds containers, as in DOCKER_HOST. PROGRESS is called in this thread; what it
    raises ends the build, and leaves nothing. Builds may run side by side, in threads or processes, with one CACHE. Of
    the environment count DOCKER_HOST, SOURCE_DATE_EPOCH, and what pip and apt read.

    :raises SystemSetup: OUTPUT is there and is no tree of ours, or a tool is missing
    :raises pdimage.errors.Mistakes: a lock, a wheel or a Debian package is not what the image can use
    :raises pdimage.errors.PartFailed: a part could not be built
    """
    output = output.absolute()
    if output.exists() and not (output / _MARK).is_file() and not _is_empty(output):
        raise SystemSetup(f"cannot build {output}: it is there and is no tree of pdimage; name another with -o")
    cache.mkdir(parents=True, exist_ok=True)
    with scratch.directory(output.parent, output.name) as workshop:
        tree = workshop / "tree"
        tree.mkdir(mode=0o755)
        components = (*_parts(image, tree, cache, engine, progress), *_own_files(image, tree, progress))
        progress("lists")
        sbom.write(tree, image, components)
        licences.write(tree, image, components)
        base = image.sources[0].parent if image.sources else Path("/")
        record.write(tree, image, components, _inputs(image), base=base, machine=image.machine,
                     parameters={"board": image.board or "", **{
                         name: str(value) for name, value in sorted(image.variables.items())}})
        modes = {template.target: template.mode for template in image.templates}
        treefiles.normalise(tree, treefiles.epoch(), modes)
        if output.exists():
            disk.exchange(tree, output)
        else:
            tree.rename(output)
    return Built(output, image, components)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _parts(image: Image, tree: Path, cache: Path, engine: str | None, progress: Progress) -> Iterator[Component]:
    """Put into TREE what is made elsewhere: Python and Debian packages, chutes."""
    platform = image.platform
    own = _own_packages(image)
    progress("Python packages")
    yield from pythonparts.install(
        tree, requirements=platform.requirements, wheels=platform.wheels, own=own, cache=cache / "python",
        machine=image.machine, progress=progress)
    programs.write(tree, own)
    if platform.debian:
        progress("Debian packages")
        yield from debianparts.install(tree, platform.debian, cache / "debian", machine=image.machine,
                                       place=platform.place, progress=progress)
    if image.chutes:
        progress("chutes")
        built = containers.install(tree, image.chutes, cache, engine, progress, machine=image.machine)
        yield from built
        yield from contents.find(tree, built)


def _own_packages(image: Image) -> tuple[str, ...]:
    """Return which of our packages the image carries; the runtime's command stands on the installer's package."""
    if image.platform.paradrop:
        return ("fussy", "paradrop")
    return ("fussy",) if image.platform.fussy else ()


def _own_files(image: Image, tree: Path, progress: Progress) -> Iterator[Component]:
    """Put into TREE what the user adds, which wins over the parts, and what makes it a release."""
    progress("overlay and templates")
    files: set[str] = set()
    for directory in image.overlay:
        items = list(overlay_files(directory))
        copied = {item.target: item.source for item in items if not item.is_directory}
        treefiles.copy_all(tree, [item.target for item in items if item.is_directory], copied)
        files.update(copied)
    for template in image.templates:
        text = templates.render_file(template.source, template_variables(image))
        treefiles.write(tree, template.target, text, template.mode)
        files.add(template.target)
    progress("release")
    releasefiles.write(tree, image)
    if files:
        yield Component("own", "image-files", image.version, files=tuple(sorted(files)))


def _inputs(image: Image) -> Iterator[Path]:
    """Yield the files and directories that the image is made from."""
    yield from image.sources
    yield from image.overlay
    yield from (template.source for template in image.templates)
    yield from (path for path in (image.hooks.pre_install, image.hooks.post_install) if path)
    yield from (path for path in (image.platform.requirements, image.platform.wheels) if path)
    yield from (path for chute in image.chutes for path in (chute.path, chute.archive) if path)
    yield from (path for _, path in (releasefiles.keyring_files(image.keys) if image.keys else ()))
