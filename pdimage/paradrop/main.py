"""The daemon's entry point: it sets up all other parts and does nothing itself.

::

    pd                 pdconfd in this process, the update queue in one thread, HTTP in the main thread
    pd --config        pdconfd alone
"""

import argparse
import logging
import threading
from collections.abc import Sequence
from typing import Any

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

MODES = ("production", "development", "test", "local", "unittest")


class Nexus:
    """The connection to the server of the setting PDSERVER_URL, for a router that was named at ``/internal``.

    One that a server provisioned has its link to that instead (:mod:`paradrop.backend.link`).

    Args:
        mode: the start-up mode, one of MODES.
        journal: the log that the server may subscribe to.
    """

    def __init__(self, mode: str, journal: Any = None) -> None:
        self.mode = mode
        self.journal = journal
        self._stopped = threading.Event()
        self._avatar: Any = None

    def onStart(self) -> None:
        """Begin to look for the server, in a thread, if this router has its keys and a server."""
        from paradrop.backend.pdfcd.identity import IdentityFile

        identity = IdentityFile().identity
        if settings.PDSERVER_URL and identity is not None and not identity.server:
            threading.Thread(target=self.connect, daemon=True, name="nexus").start()

    def onStop(self) -> None:
        """End the connection, and the attempts to make one."""
        self._stopped.set()
        if self._avatar is not None:
            self.serverDisconnected(self._avatar, self.journal)

    def connect(self, *args: Any, **kwargs: Any) -> None:
        """Continuously try to reach the server, until it answers or onStop is called."""
        from paradrop.backend.pdfcd import apiinternal

        host = str(settings.PDSERVER_URL)
        while not self._stopped.is_set():
            if apiinternal.pollServer(host, attempts=1):
                avatar = apiinternal.ServerPerspective(host, self.journal)
                self.serverConnected(avatar, self.journal)
                return
            self._stopped.wait(apiinternal.RETRY_SECONDS)

    def serverConnected(self, avatar: Any, realm: Any) -> None:
        """The server answers: ``avatar`` is what it is to this router."""
        self._avatar = avatar
        avatar.initialize()

    def serverDisconnected(self, avatar: Any, realm: Any) -> None:
        """The server has gone."""
        self._avatar = None
        avatar.destroy()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until SIGTERM. Returns its exit code: 0, or 1 after an error, which is told in one line."""
    args = parse_arguments(argv)
    try:
        configure(args)
        if not args.config:
            reset_if_decided()
        from paradrop.backend.pdfcd.journal import start_logging

        journal = start_logging()
        if args.config:
            from paradrop.backend.pdconfd import main as pdconfd

            pdconfd.run_pdconfd()
        else:
            run(args, journal)
    except (ParadropError, OSError, ValueError) as error:
        log.error("%s", error)
        log.debug("", exc_info=error)
        return 1
    return 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the documented arguments."""
    parser = argparse.ArgumentParser(prog="pd", description="The Paradrop daemon of a router")
    parser.add_argument("-s", "--settings", metavar="KEY:VALUE", action="append", default=[],
                        help="set a setting; may be repeated, and the environment wins")
    parser.add_argument("--development", action="store_true", help="listen 10000 ports higher, show tracebacks")
    parser.add_argument("--unittest", action="store_true", help="listen 20000 ports higher, keep files in /tmp")
    parser.add_argument("--config", action="store_true", help="run the configuration daemon alone")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("-m", "--mode", choices=MODES, default="production",
                        help="production writes Docker's start options; local and unittest keep files in /tmp")
    parser.add_argument("-l", "--local", action="store_true", help="as --mode local")
    args = parser.parse_args(argv)
    args.unittest = args.unittest or args.mode == "unittest"
    args.development = args.development or args.mode == "development"
    args.mode = "local" if args.local else "unittest" if args.unittest else args.mode
    return args


def configure(args: argparse.Namespace) -> None:
    """Set the settings that the arguments ask for; those given one by one win, and the environment over all.

    Raises:
        ValueError: a setting is not KEY:VALUE.
    """
    if args.mode in ("local", "unittest"):
        settings.relocate(settings.trialDirectory() if args.mode == "local" else "/tmp/paradrop-unittest")
    given = [*args.settings]
    if args.verbose:
        given.append("VERBOSE:True")
    if args.development:
        given.append("DEBUG_MODE:True")
    settings.updateSettings(given)


def reset_if_decided() -> None:
    """Carry out a factory reset that was decided on, before anything is read, or a file of the log is open.

    Raises:
        ParadropError: it cannot be carried out yet.
    """
    from paradrop.backend.fc import factory

    if factory.decided():
        factory.finish()


def run(args: argparse.Namespace, journal: Any) -> None:
    """Run every part in this process, until it is told to stop."""
    from paradrop.backend.pdconfd import main as pdconfd
    from paradrop.backend.pdfcd import server
    from paradrop.image import chutes, snapshots

    snapshots.begin(chutes.release())
    listening = pdconfd.run_thread()
    nexus = Nexus(args.mode, journal)
    nexus.onStart()
    try:
        server.setup(args, journal)
    finally:
        nexus.onStop()
        listening.close()


if __name__ == "__main__":
    raise SystemExit(main())
