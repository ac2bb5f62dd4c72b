"""Updates that somebody decides on a page of the build server (``fussy-update --on-demand --page``).

The router says what it has and gets the address of a page, which it shows. It looks every few seconds whether somebody
decided there; what was decided it installs as :mod:`.demand` does, and it reports how far it is. The page decides which
packages, and nothing else: the board, and that no older version comes, is looked after here.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from fussy import ondemand, versions
from fussy import target as targets
from fussy.errors import FussyError, TooSlow, Unreachable, UntrustedChannel
from fussy.ondemand import Request
from fussy.trust import printable
from fussy.updating import fetching
from fussy.updating.demand import Asking, Router, Tell, read
from fussy.updating.downloads import Progress
from fussy.updating.record import Record
from fussy.updating.settings import Settings
from fussy.updating.update import Bar, Wish
from fussy.updating.web import Web

# Seconds for which somebody may think about it.
THINKING = 3600.0
_REPORT_SECONDS = 2.0
_LOOKS = (1, 60)


class Visit(msgspec.Struct, frozen=True):
    """The answer to a router that comes. ``seconds``: how often it is to look."""

    token: str
    page: str
    seconds: int


class Decision(msgspec.Struct, frozen=True):
    """What was decided on the page: ``wait`` for more, or ``install`` this request."""

    state: str
    request_hash: str = ""
    request: Request | None = None


def run(path: Path, settings: Settings, keyring: Path, wish: Wish, *, bar: Bar, tell: Tell) -> Record:
    """Update the target at PATH as it is decided on a page, whose address TELL is told; return how it went.

    :raises Busy: another updater, or another command on the target, works
    :raises SystemSetup: there is no such target
    """
    target = targets.find(path)
    with fetching.locked(target) as place:
        led = _Led(target, place, settings, keyring, wish, bar).asking((), (), tell)
        found = led.run()
        led.report("done" if found.outcome == "updated" else "failed", found.line)
        return found


class _Led(Asking):
    """A run that is led from a page."""

    _visits: Web | None = None
    _visit = ""

    def _wanted(self, router: Router) -> Request | None:
        """Return what was decided on the page.

        :raises TooSlow: nobody decided anything
        """
        self._visits = Web(self._web.name, fetching.limits(self.settings, THINKING + self.settings.deadline),
                           fetching.route(self.settings))
        came = self._visits.ask("POST", "api/visits", msgspec.json.encode({
            "distro": router.distro, "version": router.version, "target": router.target, "board": router.profile,
            "installed": router.packages, "name": socket.gethostname()[:64],
            **({"request": router.request} if router.request else {})}))
        visit: Visit = read(came, Visit, self.source, 201)
        self._visit = f"api/visits/{visit.token}"
        self._tell(f"decide on {printable(visit.page)}")
        request = self._decided(min(max(visit.seconds, _LOOKS[0]), _LOOKS[1]))
        if (request.distro, request.target, request.profile) != (router.distro, router.target, router.profile):
            raise UntrustedChannel(f"{self.source}: it wants to install what is for another board than this one")
        if versions.key(request.version) < versions.key(router.version):
            raise UntrustedChannel(f"{self.source}: it offers {printable(request.version)} to a router that has "
                                   f"{router.version} (rollback attack)")
        self._deadline = time.monotonic() + self.settings.deadline
        self._web = Web(self._web.name, fetching.limits(self.settings, self.settings.deadline),
                        fetching.route(self.settings))
        self.bar = partial(self._reporting, self.bar)
        return request

    def _decided(self, pause: int) -> Request:
        assert self._visits
        end = time.monotonic() + THINKING
        while time.monotonic() < end:
            try:
                reply = self._visits.ask("GET", self._visit)
            except (Unreachable, TooSlow) as error:
                self._tell(str(error))
            else:
                if reply.status < 500:
                    decision: Decision = read(reply, Decision, self.source)
                    if decision.state == "install" and decision.request:
                        return _checked(decision, self.source)
            time.sleep(pause)
        raise TooSlow(f"cannot update: nobody decided anything on the page within {THINKING / 60:.0f} minutes")

    def report(self, stage: str, text: str = "", percent: int = 0) -> None:
        """Tell the page how far this router is; it does without if the server can't be reached."""
        if not self._visits or not self._visit:
            return
        try:
            self._visits.ask("POST", self._visit, msgspec.json.encode(
                {"stage": stage, "text": printable(text)[:500], "percent": percent}))
        except FussyError as error:
            self._tell(f"the page was not told: {error}")

    @contextmanager
    def _reporting(self, bar: Bar, label: str) -> Iterator[Progress | None]:
        """Show progress here, and tell the page of it."""
        stage = "downloading" if label == "fetching" else "installing"
        self.report(stage)
        told = time.monotonic()
        with bar(label) as show:
            def both(done: int, total: int) -> None:
                nonlocal told
                if show:
                    show(done, total)
                if time.monotonic() - told > _REPORT_SECONDS:
                    told = time.monotonic()
                    self.report(stage, percent=min(100, 100 * done // max(1, total)))

            yield both


def _checked(decision: Decision, source: str) -> Request:
    assert decision.request
    if ondemand.digest(decision.request) != decision.request_hash:
        raise UntrustedChannel(f"{source}: what was decided has another digest than the server says")
    return ondemand.normal(decision.request)
