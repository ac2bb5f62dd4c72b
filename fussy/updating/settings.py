"""What the router's owner sets: ``/etc/fussy/update.toml``."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from fussy import disk, windows
from fussy.errors import FussyError, SystemSetup

DEFAULT = "/etc/fussy/update.toml"
_WINDOW_LINE = re.compile(r"\s*[\"']?window[\"']?\s*=")


class Demand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``on_demand``: the build server, and what the release in use does not say of itself."""

    server: str = ""
    distro: str = ""
    version: str = ""
    target: str = ""
    profile: str = ""
    packages: list[str] = []


class Hawkbit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``hawkbit``: the server that says what this router is to run, and by which name and token it knows it.

    ``certificate``: a file (PEM) with the one certificate that it may show; "": an authority must vouch for it.
    ``when_away``: what decides once it could not be asked for ``away_hours``. ``forced``: whether what it forces waits
    for the owner's window all the same.
    """

    url: str = ""
    tenant: str = ""
    name: str = ""
    token: str = ""
    token_file: str = ""
    certificate: str = ""
    when_away: Literal["channel", "stay"] = "channel"
    away_hours: float = 24.0
    forced: Literal["waits", "at-once"] = "waits"


class Settings(msgspec.Struct, frozen=True):
    """The settings; see README.rst beside this module for what each one means."""

    sources: list[str] = []
    product: str = ""
    mode: Literal["automatic", "notify", "off"] = "automatic"
    window: str = ""
    random_delay: float = 1800.0
    bandwidth: int = 0
    lowest_speed: int = 1000
    patience: float = 30.0
    check_deadline: float = 120.0
    deadline: float = 4 * 3600.0
    proxy: str = ""
    authority: str = ""
    memory: int = 8
    device: str = ""
    boards: list[str] = []
    on_demand: Demand = Demand()
    hawkbit: Hawkbit | None = None


def load(path: Path) -> Settings:
    """Read the settings.

    :raises SystemSetup: the file can't be read or has mistakes; the message names all of them
    """
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise SystemSetup(f"cannot look for updates: there is no {path}; write one with `sources` and `product`, "
                          "or name another with --settings") from error
    except OSError as error:
        raise SystemSetup(f"cannot read {path}: {error.strerror}; name another file with --settings") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SystemSetup(f"cannot read {path}: {error}") from error
    settings, mistakes = parse(found)
    if mistakes:
        raise SystemSetup(f"cannot use {path}: {'; '.join(mistakes)}")
    return settings


def set_window(path: Path, window: str) -> None:
    """Write the owner's window into the settings, "" for any time; all else stays, comments too. Durable.

    A link to a file of the release in use gives way to a file of its own.

    :raises FussyError: that is no window
    :raises SystemSetup: there are no settings, or they can't be read or written
    """
    try:
        windows.parse(window)
    except ValueError as error:
        raise FussyError(f"cannot set the window: {error}") from error
    load(path)
    line = f"window = {json.dumps(window)}"
    lines = path.read_text().splitlines()
    own = next((number for number, text in enumerate(lines) if text.lstrip().startswith("[")), len(lines))
    there = next((number for number, text in enumerate(lines[:own]) if _WINDOW_LINE.match(text)), None)
    made = [line, *lines] if there is None else [*lines[:there], line, *lines[there + 1:]]
    content = "\n".join(made) + "\n"
    before, after = tomllib.loads("\n".join(lines)), tomllib.loads(content)
    if after != {**before, "window": window}:
        raise SystemSetup(f"cannot set the window in {path}: it is not on a line of its own; write it by hand")
    try:
        mode = path.stat().st_mode
        disk.replace_file(path, content.encode())
        path.chmod(mode & 0o777)
    except OSError as error:
        raise SystemSetup(f"cannot write {path}: {error.strerror}; make it writable") from error


def parse(found: dict[str, Any]) -> tuple[Settings, list[str]]:
    """Return the settings and all mistakes in them; a setting that is wrong has its default."""
    types = get_type_hints(Settings)
    good, mistakes = {}, []
    for name, value in found.items():
        if name not in types:
            mistakes.append(f"there is no setting {name!r}")
            continue
        try:
            good[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            words = f"write one of {', '.join(get_args(types[name]))}; " if get_origin(types[name]) is Literal else ""
            mistakes.append(f"{name}: {words}{error}")
    settings = Settings(**good)
    bad = {mistake.partition(":")[0] for mistake in mistakes}
    return settings, mistakes + [mistake for mistake in _problems(settings) if mistake.partition(":")[0] not in bad]


def _problems(settings: Settings) -> list[str]:
    others = settings.on_demand.server or settings.hawkbit
    wrong = [] if settings.sources or others else ["sources: name at least one URL or directory"]
    wrong += [f"sources: {problem}" for source in settings.sources if (problem := _source_problem(source))]
    server = settings.on_demand.server
    if server and not _is_address(server):
        wrong.append(f"on_demand: server: {server!r} is not an http(s) address without a query")
    wrong += [f"hawkbit: {problem}" for problem in (_hawkbit_problems(settings.hawkbit) if settings.hawkbit else ())]
    if ((settings.sources or not others) and not settings.product) or settings.product != settings.product.strip("/"):
        wrong.append("product: name the product line, as the channel calls it")
    try:
        windows.parse(settings.window)
    except ValueError as error:
        wrong.append(f"window: {error}")
    wrong += [f"{name}: must not be below {least:g}" for name, least in
              (("random_delay", 0), ("bandwidth", 0), ("lowest_speed", 1), ("patience", 1), ("check_deadline", 1),
               ("deadline", 1), ("memory", 1)) if not getattr(settings, name) >= least]
    if 0 < settings.bandwidth < settings.lowest_speed:
        wrong.append("bandwidth: must not be below lowest_speed, or each download would be given up")
    if settings.proxy not in ("", "none") and urlsplit(settings.proxy).scheme not in ("http", "https"):
        wrong.append("proxy: write http://host:port, or none")
    return wrong


def _hawkbit_problems(hawkbit: Hawkbit) -> Iterator[str]:
    if not _is_address(hawkbit.url):
        yield f"url: {hawkbit.url!r} is not an http(s) address without a query"
    yield from (f"{name}: name the {what}" for name, what in (("tenant", "tenant"), ("name", "router, as it knows it"))
                if not getattr(hawkbit, name))
    if bool(hawkbit.token) == bool(hawkbit.token_file):
        yield "token: write a token, or the name of its file as token_file"
    if not hawkbit.away_hours >= 0:
        yield "away_hours: must not be below 0"


def _is_address(text: str) -> bool:
    return not text.startswith("/") and not _source_problem(text)


def _source_problem(source: str) -> str:
    if source.startswith("/"):
        return ""
    try:
        parts = urlsplit(source)
        usable = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        return f"{source!r} is neither an http(s) address without a query nor an absolute directory"
    return ""
