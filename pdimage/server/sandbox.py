"""Shuts a build off (bubblewrap, bwrap(1)): it sees neither keys nor database nor other processes.

Inside, the whole file system is read-only, and the server's directory, the homes and the sockets of agents and engines
are empty, but for the build's own directory and the cache. It has no capabilities, a network only if its distribution
says so, and ends when the worker ends.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage.server.settings import Settings

# What a build may know of our environment.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "SOURCE_DATE_EPOCH")
_KEPT_PREFIXES = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock")


@functools.cache
def works() -> bool:
    """Tell whether bubblewrap is here and may do its work."""
    program = shutil.which("bwrap")
    if program is None:
        return False
    tried = subprocess.run([program, *_isolation(False), "--ro-bind", "/", "/", "--proc", "/proc", "true"],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    return tried.returncode == 0


def is_used(settings: Settings) -> bool:
    """Tell whether builds are shut off.

    :raises SystemSetup: they have to be, but can't
    """
    if settings.sandbox == "off":
        return False
    if settings.sandbox == "required" and not works():
        raise SystemSetup("cannot shut builds off: bwrap is missing or may not make namespaces; install bubblewrap, "
                          "or use the setting sandbox")
    return works()


def command(settings: Settings, argv: Sequence[str], *, place: Path, network: bool, readable: Sequence[Path]) -> list[
        str]:
    """Return the command that runs ARGV shut off, with PLACE and the cache to write and READABLE to read."""
    if not is_used(settings):
        return list(argv)
    settings.cache.mkdir(parents=True, exist_ok=True)
    shut = [shutil.which("bwrap") or "bwrap", *_isolation(network), "--ro-bind", "/", "/", "--dev", "/dev",
            "--proc", "/proc", "--tmpfs", "/tmp"]
    hidden = [path for path in _hidden(settings) if path.is_dir()]
    for path in hidden:
        shut += ["--tmpfs", str(path)]
    for path in sorted({*map(Path.resolve, readable), *_programs()}):
        if path.exists() and any(path.is_relative_to(one) for one in [*hidden, Path("/tmp")]):
            shut += ["--ro-bind", str(path), str(path)]
    engine = settings.engine.removeprefix("unix://")
    for socket in _SOCKETS:
        if Path(socket).exists() and socket != engine:
            shut += ["--ro-bind", "/dev/null", socket]
    for path in (settings.cache, place):
        shut += ["--bind", str(path), str(path)]
    if engine and Path(engine).is_socket():
        shut += ["--bind", engine, engine]
    return [*shut, "--chdir", str(place), "--", *argv]


def environment() -> dict[str, str]:
    """Return the environment of builds: nothing of ours that could hold a password."""
    kept = {name: value for name, value in os.environ.items()
            if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return {**kept, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}


def _isolation(network: bool) -> list[str]:
    argv = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session", "--cap-drop",
            "ALL"]
    return argv if network else [*argv, "--unshare-net"]


def _hidden(settings: Settings) -> Iterator[Path]:
    """Yield the directories of which a build sees nothing."""
    yield settings.root
    if not settings.keys.is_relative_to(settings.root):
        yield settings.keys
    yield from (Path("/root"), Path("/home"), Path("/run/user"), Path("/etc/ssl/private"))
    for name in ("GNUPGHOME", "CREDENTIALS_DIRECTORY"):
        if os.environ.get(name):
            yield Path(os.environ[name]).absolute()


def _programs() -> Iterator[Path]:
    """Yield where Python and our packages lie."""
    import paradrop
    import pdimage

    yield from (Path(sys.prefix), Path(sys.base_prefix))
    for package in (pdimage, paradrop):
        yield Path(str(package.__file__)).resolve().parent.parent
