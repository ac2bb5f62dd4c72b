"""Settings of the lab: the environment goes before files, the user's files before the system's.

A file has lines ``name = value``; lines that begin with ``#`` are comments. A directory has a file for each name.

==================  ==============================================================================================
Setting             Meaning
==================  ==============================================================================================
``cache``           directory for built systems (default ``~/.cache/pdimage/lab``)
``accel``           ``kvm`` or ``tcg``: what emulates the processor (default: KVM if a kernel boots under it)
``work_dir``        directory on a disk for what tests and power cuts need meanwhile, some GB (default ``/var/tmp``)
``lease_dir``       directory for leases of subnets (default ``/var/lib/lago/subnets/``)
``log_level``       ``debug``, ``info``, ``warning``: what :func:`pdimage.lab.utils.setup_logging` keeps
==================  ==============================================================================================
"""

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage.lab import constants

_NOTHING = object()
Provider = Callable[[str], str | None]


def get(key: str, default: object = _NOTHING) -> object:
    """Return the setting KEY, as text, or DEFAULT where nobody says it.

    :raises KeyError: nobody says it and there is no default
    """
    for provider in _get_providers():
        value = provider(key)
        if value is not None:
            return value
    if default is _NOTHING:
        raise KeyError(f"cannot find the setting {key}: set {constants.ENVIRONMENT}{key.upper()} or write "
                       f"'{key} = …' into {constants.CONFIG_FILES[0]}")
    return default


def text(key: str, default: str) -> str:
    """Return the setting KEY as text."""
    return str(get(key, default))


def cache() -> Path:
    """Return the directory for what is built once and used by all labs of this user."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(text("cache", f"{home}/pdimage/lab")).expanduser()


def _get_providers() -> tuple[Provider, ...]:
    """Return the places to ask, the strongest first."""
    return (_get_from_env, functools.partial(_get_from_files, constants.CONFIG_FILES),
            *(functools.partial(_get_from_dir, path) for path in constants.CONFIG_DIRS))


def _get_environ() -> dict[str, str]:
    """Return what the environment says, by the names of settings."""
    start = constants.ENVIRONMENT
    return {name.removeprefix(start).lower(): value for name, value in os.environ.items() if name.startswith(start)}


def _get_from_env(key: str) -> str | None:
    """Return a setting from the environment, None if it is not there."""
    return _get_environ().get(key.lower())


def _get_from_files(paths: Iterable[str], key: str) -> str | None:
    """Return a setting from the first of the files that has it, None if none has.

    :raises SystemSetup: a file cannot be read
    """
    for path in paths:
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SystemSetup(f"cannot read the settings of the lab: {path}: {error}") from error
        for line in lines:
            name, equals, value = line.partition("=")
            if equals and not name.lstrip().startswith("#") and name.strip().lower() == key.lower():
                return value.strip()
    return None


def _get_from_dir(path: str, key: str) -> str | None:
    """Return a setting that is the content of the file KEY in a directory, None if it is not there."""
    try:
        return (Path(path).expanduser() / key).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
