"""The settings of the server and its workers: one frozen value, from a TOML file and from the command line.

Every setting has a default with which ``pdimage serve`` works by itself: SQLite, a worker of its own, files on disk.
README.rst has the table; it and this structure are compared by a test.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from fussy.errors import SystemSetup

EXAMPLE = Path(__file__).parent / "example" / "catalogue.yaml"
# A setting may come from the environment, where containers and units put passwords.
PREFIX = "PDIMAGE_SERVER_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """See README.rst for what each one means. Sizes are bytes, times seconds, paths relative to ``data``."""

    data: str = "build-server"
    listen: str = "127.0.0.1:8000"
    url: str = ""
    processes: int = 1
    catalogue: str = ""
    database: str = ""
    queue: str = ""
    store: str = ""
    store_options: dict[str, str] = {}
    store_redirect: bool = False

    workers: int = 1
    sandbox: Literal["auto", "required", "off"] = "auto"
    engine: str = ""
    build_seconds: float = 600.0
    lease_seconds: float = 20.0
    attempts: int = 3

    gnupghome: str = ""
    sign_with: str = ""
    passphrase_file: str = ""
    signify_key: str = ""
    encrypt_for: tuple[str, ...] = ()

    queue_limit: int = 200
    client_queue: int = 20
    client_hourly: int = 60
    retry_after: int = 300
    body_limit: int = 64 << 10
    body_seconds: float = 15.0
    defaults_limit: int = 10_000
    allow_defaults: bool = True
    packages_limit: int = 1000
    trusted_proxies: tuple[str, ...] = ()
    connections: int = 1000

    tls_certificate: str = ""
    tls_key: str = ""
    registration: Literal["open", "invited", "closed"] = "open"
    name_length: int = 8
    login_failures: int = 10
    lockout_seconds: float = 300.0
    login_days: float = 30.0
    account_tokens: int = 50
    account_routers: int = 1000
    secret_seconds: float = 900.0
    router_keyring: str = ""
    router_signers: tuple[str, ...] = ()
    channel: str = ""
    channel_root: str = ""
    channel_product: str = ""
    channel_directory: str = ""
    rollout_files: str = "rollout-files"
    rollout_approval: bool = False
    account_groups: int = 100
    poll_seconds: int = 300
    gateway_token: str = ""
    keep_audit_days: float = 400.0

    links: int = 15_000
    link_seconds: float = 30.0
    link_rate: float = 200.0
    machine_url: str = ""

    log_format: Literal["text", "json"] = "text"
    log_access: bool = False

    sysupgrade: Literal["auto", "link", "name"] = "auto"
    failure_seconds: float = 600.0
    keep_image_days: float = 14.0
    keep_defaults_days: float = 7.0
    keep_snapshot_days: float = 1.0
    collect_seconds: float = 21600.0
    update_seconds: float = 86400.0

    @property
    def root(self) -> Path:
        """The directory that everything of the server lies in."""
        return Path(self.data).absolute()

    @property
    def catalogue_file(self) -> Path:
        """The catalogue; the one of the example if none is named."""
        return self.root / self.catalogue if self.catalogue else EXAMPLE

    @property
    def database_url(self) -> str:
        """Where the database is, as SQLAlchemy takes it."""
        return self.database or f"sqlite:///{self.root / 'server.db'}"

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """The files with the certificate and the key of HTTPS, if it is spoken."""
        return (self.root / self.tls_certificate, self.root / self.tls_key) if self.tls_certificate else None

    @property
    def keys(self) -> Path:
        """The directory with the keys that sign; only the signing process reads it."""
        return self.root / self.gnupghome if self.gnupghome else self.root / "keys"

    @property
    def work(self) -> Path:
        """Where builds work, one directory each."""
        return self.root / "work"

    @property
    def cache(self) -> Path:
        """What the next build can use again."""
        return self.root / "cache"


def load(file: Path | None, given: Mapping[str, Any]) -> Settings:
    """Return the settings of FILE (TOML), of the environment (``PDIMAGE_SERVER_NAME``), and GIVEN, the last winning.

    :raises SystemSetup: one is unknown or is not what it should be
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values |= tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SystemSetup(f"cannot read the settings {file}: {error}") from error
    known = {field.name for field in msgspec.structs.fields(Settings)}
    values |= {name: os.environ[PREFIX + name.upper()] for name in sorted(known) if PREFIX + name.upper() in os.environ}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        found = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SystemSetup(f"cannot use the settings: {error}; known are {', '.join(sorted(known))}") from error
    _check(found)
    return found


def _check(settings: Settings) -> None:
    for name in ("processes", "workers", "attempts", "queue_limit", "client_queue", "client_hourly", "connections",
                 "packages_limit", "lease_seconds", "build_seconds", "login_failures", "account_tokens",
                 "account_routers", "account_groups", "poll_seconds", "login_days", "secret_seconds", "links",
                 "link_seconds", "link_rate"):
        if getattr(settings, name) <= 0:
            raise SystemSetup(f"cannot use the settings: {name} must be more than 0")
    if not 3 <= settings.name_length <= 32:
        raise SystemSetup("cannot use the settings: name_length must be from 3 to 32")
    for one, other in (("tls_certificate", "tls_key"), ("channel", "channel_root")):
        if bool(getattr(settings, one)) != bool(getattr(settings, other)):
            raise SystemSetup(f"cannot use the settings: {one} and {other} need each other")
    address(settings.listen)


def address(listen: str) -> tuple[str, int]:
    """Return host and port of a text as in ``127.0.0.1:8000`` or ``[::1]:8000``.

    :raises SystemSetup: it is none
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SystemSetup(f"cannot listen on {listen!r}: write HOST:PORT, for example 127.0.0.1:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)
