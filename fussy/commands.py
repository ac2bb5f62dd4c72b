"""What every command line of this package shares: one line for an error, the right exit code, the log.

The documented modules build their commands with :func:`command`; nothing here decides anything about firmware.
"""

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from fussy.errors import FussyError, SystemSetup, of_machine

KEYRING = "/etc/fussy/keys"
TARGET = "/opt/firmware"
INSTALL_LOG = "/tmp/fussy-install.log"

_PATH = click.Path(path_type=Path)

target_option = click.option("-t", "--target", type=_PATH, default=TARGET, show_default=True,
                             help="Directory where releases live.")
keyring_option = click.option("-k", "--keyring", type=_PATH, default=KEYRING, show_default=True,
                              help="Key directory (GNUPGHOME) with the keys that may sign.")
logfile_option = click.option("-l", "--logfile", type=_PATH, default=INSTALL_LOG, show_default=True,
                              help="File that the log is appended to.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show the log on stderr.")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Failure(click.ClickException):
    """A failed command: one line on stderr, ``NAME: cannot …``, and the exit code of the error's class."""

    def __init__(self, name: str, error: Exception, exit_code: int) -> None:
        super().__init__(str(error))
        self.name = name
        # click reads the code from the instance but declares it for the class
        setattr(self, "exit_code", exit_code)  # noqa: B010

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self.name}: {self.message}", file=file or sys.stderr)


class Command(click.Command):
    """A click command that ends a FussyError (and what is the machine's fault) in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        name = ctx.command_path
        try:
            return super().invoke(ctx)
        except FussyError as error:
            raise Failure(name, error, error.exit_code) from error
        except (OSError, MemoryError, RuntimeError) as error:
            if told := of_machine(error):
                raise Failure(name, told, told.exit_code) from error
            raise


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function the click command NAME, its docstring the help; errors end in one line and their exit code."""
    settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
    return click.command(name, cls=Command, **settings)


def start_logging(verbose: bool, logfile: Path | None = None) -> None:
    """Send this package's log to LOGFILE (appended) and, when VERBOSE, to stderr; warnings always go to stderr.

    The documented default log lies in /tmp, where others can write: the file is opened without following links and
    must be a regular file of this user.

    :raises SystemSetup: the log file can't be used.
    """
    root = logging.getLogger("fussy")
    root.setLevel(logging.DEBUG)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.DEBUG if verbose else logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(terminal)
    if logfile is not None:
        log = logging.StreamHandler(open_log(logfile))
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(log)


def open_log(path: Path) -> IO[str]:
    """Open a log for appending; see :func:`start_logging`."""
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        what = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise SystemSetup(f"cannot write the log {path}: {what}; name another with --logfile") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(descriptor)
        raise SystemSetup(f"cannot write the log {path}: it is not a regular file of this user; "
                          "name another with --logfile")
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
