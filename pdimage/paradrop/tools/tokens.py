"""Where the command finds the token for a router.

In this order: what the user gives (option or environment), what ``router login`` kept, and on the router itself what
the daemon wrote for root; one that was started for a trial wrote it elsewhere. Of these two the newer counts: a daemon
that was killed leaves its own behind.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import click

from paradrop.backend.pdfcd.apiutils import isLoopback
from paradrop.lib import settings
from paradrop.lib.utils import pdosq


def find(host: str, port: int) -> str | None:
    """Return the token kept for a router, None if there is none."""
    kept = _read().get(f"{host}:{port}")
    if kept:
        return kept
    if host == "localhost" or isLoopback(host):
        return _of_daemon(Path(settings.RUNTIME_HOME_DIR), Path(settings.trialDirectory()) / "run")
    return None


def keep(host: str, port: int, token: str | None) -> Path:
    """Keep a token for a router, or forget it (None), in a file that only the user can read; return its place."""
    tokens = _read()
    tokens.pop(f"{host}:{port}", None)
    if token is not None:
        tokens[f"{host}:{port}"] = token
    place = _place()
    pdosq.makedirs(place.parent)
    place.parent.chmod(0o700)
    pdosq.replaceFile(place, json.dumps(tokens, indent=1).encode())
    return place


def _of_daemon(*runtimes: Path) -> str | None:
    found: list[tuple[int, str]] = []
    for runtime in runtimes:
        with suppress(OSError):
            place = runtime / "api/token"
            found.append((place.stat().st_mtime_ns, place.read_text().strip()))
    return max(found)[1] if found else None


def directory() -> Path:
    """Return the directory in which this computer keeps what proves who its user is."""
    return Path(os.environ.get("PARADROP_CONFIG_DIR") or click.get_app_dir("paradrop"))


def _place() -> Path:
    return directory() / "tokens.json"


def _read() -> dict[str, str]:
    try:
        content = json.loads(_place().read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
