"""Updates by a build server, which makes the image that this router asks for (``fussy-update --on-demand``).

::

    upgrade-check ── 204, and nothing else is wanted ──> nothing new
          │ newer version, newer packages, other packages
    upgrade-request ── 202 ──> ask again, while the deadline allows
          │ 200
    download, verify, compare with what was asked for (fussy.ondemand), install

A run may be killed anywhere: the next one asks for the same, which has the same digest, and the server has it already.
The server's answers are not signed, the image is. So they decide what is asked for, and nothing else: a version older
than the one in use is refused here, and an image that is not exactly what was asked for where it is unpacked.
"""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import msgspec

from fussy import enable, ondemand, state, versions
from fussy import target as targets
from fussy.channel import Offer
from fussy.errors import (
    BadBundle,
    FussyError,
    Incompatible,
    OnlyRefused,
    Reverted,
    SystemSetup,
    TooSlow,
    Unreachable,
    Unrecoverable,
    Untrusted,
    UntrustedChannel,
)
from fussy.ondemand import Request
from fussy.trust import printable
from fussy.updating import choose, device, downloads, fetching, record
from fussy.updating.choose import Device, Found
from fussy.updating.record import Outcome, Record
from fussy.updating.settings import Settings
from fussy.updating.update import EXIT_CODES, Bar, Run, Wish, no_bar
from fussy.updating.web import Reply, Web

# Seconds between questions how far the image is, first and later, and the longest that a busy server may ask to wait.
FIRST_PAUSE, PAUSE, MOST_PAUSE = 0.5, 4.0, 600.0
_BUSY = (429, 502, 503, 504)

Tell = Callable[[str], object]


class Router(msgspec.Struct, frozen=True):
    """What a build server is told: the release in use, and what was asked for when it was built, with versions.

    ``request``: digest of what was asked for, empty if it was not built on demand; it is replaced by one that was.
    """

    distro: str
    version: str
    target: str
    profile: str
    packages: Mapping[str, str]
    request: str = ""


class Image(msgspec.Struct, frozen=True):
    """The fields of a finished request's answer that count here."""

    request_hash: str
    sysupgrade: str
    sha256: str
    size: int


class News(msgspec.Struct, frozen=True):
    """The fields of an upgrade check's answer that count here."""

    version: str
    packages: list[str]
    upgrades: dict[str, list[str]] = {}


class Built(Found):
    """An image of a build server; ``path`` is relative to the address it lies below."""

    @property
    def place(self) -> str:
        return self.path


def run(path: Path, settings: Settings, keyring: Path, wish: Wish, *, add: Collection[str] = (),
        remove: Collection[str] = (), bar: Bar | None = None, tell: Tell = lambda text: None) -> Record:
    """Update the target at PATH by the build server of SETTINGS; return how it went, as it was recorded.

    :param add: packages that are wanted beside those of the release in use
    :param remove: packages of the release in use that are not wanted any more
    :param tell: is told how far the server is
    :raises Busy: another updater, or another command on the target, works
    :raises SystemSetup: there is no such target
    """
    target = targets.find(path)
    with fetching.locked(target) as place:
        return Asking(target, place, settings, keyring, wish, bar or no_bar).asking(add, remove, tell).run()


class Asking(Run):
    """A run that asks a build server."""

    def asking(self, add: Collection[str], remove: Collection[str], tell: Tell) -> Self:
        """Set what is wanted beside, and who is told how it goes."""
        self._add, self._remove, self._tell = frozenset(add), frozenset(remove), tell
        return self

    def _update(self) -> tuple[Outcome, str, int]:
        self._deadline = time.monotonic() + self.settings.deadline
        self._web = Web(self.settings.on_demand.server or _no_server(),
                        fetching.limits(self.settings, self.settings.deadline), fetching.route(self.settings))
        self.source = self._web.name
        me = device.device(self.target, self.settings, state.load(self.target))
        self.version = me.version
        router = describe(enable.description(self.target.current_release()).metadata, me.version, self.settings)
        request = self._wanted(router)
        self.checked = self.now
        if request is None:
            return "nothing-new", "nothing new", 0
        return self._get(request, me)

    def _wanted(self, router: Router) -> Request | None:
        """Return the image to ask for; None if the router has it."""
        unknown = sorted(self._remove - set(router.packages))
        if unknown:
            raise SystemSetup(f"cannot leave out {', '.join(unknown)}: this release was not asked for with it; it was "
                              f"with {', '.join(sorted(router.packages)) or 'no packages'}")
        reply = self._web.ask("POST", "api/upgrade-check", msgspec.json.encode({
            "distro": router.distro, "version": router.version, "target": router.target,
            "installed": router.packages, "upgrade_packages": 1}))
        changed = bool(self._remove or self._add - set(router.packages) or not router.request)
        if reply.status == 204 and not changed:
            return None
        news = News(router.version, list(router.packages)) if reply.status == 204 else read(reply, News, self.source)
        if versions.key(news.version) < versions.key(router.version):
            raise UntrustedChannel(f"{self.source}: it offers {printable(news.version)} to a router that has "
                                   f"{router.version} (rollback attack)")
        names = (set(news.packages) - self._remove) | self._add
        known = {**router.packages, **{name: new[0] for name, new in news.upgrades.items() if new}}
        pinned = {name: known[name] for name in names if known.get(name)}
        return ondemand.normal(Request(router.distro, news.version, router.target, router.profile, tuple(names),
                                       packages_versions=pinned, diff_packages=True))

    def _get(self, request: Request, me: Device) -> tuple[Outcome, str, int]:
        """Have the image built and install it, if it may be installed now."""
        digest = ondemand.digest(request)
        offer = Offer(kind="full", release=f"{request.distro}-{request.version}-{digest[:12]}", version=request.version,
                      digest=digest)
        if outcome := self._may_not(Built("", 0, digest, offer)):
            return outcome
        if any(one.sha256 == digest for one in self.spoilt):
            return "refused", (f"cannot update: {choose.named(offer)} failed on this device before (see fussy log); "
                               "a newer release or other packages are needed"), EXIT_CODES["refused"]
        if self._look_only:
            return "available", f"{choose.named(offer)} can be built: {', '.join(request.packages)}", \
                10 if self.wish.check else 0
        base, way = self._built(request, digest, offer)
        return self._take(base, way, request, me)

    def _may_not(self, way: Found) -> tuple[Outcome, str, int] | None:
        """Return why an image must not be installed now; None if it may."""
        if self.wish.insist:
            self.choice = choose.Choice("available", "", [way])
            return None
        self.choice = choose.when([way], self.settings, record.load_owner(self.target), datetime.now(), True)
        if self.choice.outcome == "available":
            return None
        return self.choice.outcome, self.choice.reason, EXIT_CODES.get(self.choice.outcome, 0)

    def _built(self, request: Request, digest: str, offer: Offer) -> tuple[str, Built]:
        """Ask for the image until it is there; return the address it lies below, and the file."""
        image = read(self._wait(request, digest), Image, self.source)
        if image.request_hash != digest:
            raise UntrustedChannel(f"{self.source}: it has built another request than {digest[:12]}, which this router "
                                   "asked for")
        link = urljoin(f"{self.source}/store/{digest}/", image.sysupgrade)
        if not link.startswith(("http://", "https://")) or \
                (self.source.startswith("https:") and not link.startswith("https:")):
            raise UntrustedChannel(f"{self.source}: it links to {printable(link)}: from https only https is followed")
        base, _, name = link.rpartition("/")
        return base, Built(name, image.size, image.sha256, offer)

    def _wait(self, request: Request, digest: str) -> Reply:
        """Return the answer when the image is there. While the server can't be reached, it is asked again."""
        wish = msgspec.json.encode({
            "distro": request.distro, "version": request.version, "target": request.target, "board": request.profile,
            "packages": request.packages, "packages_versions": request.packages_versions})
        poll, told, usual = "", "", FIRST_PAUSE
        while True:
            try:
                reply = self._web.ask("GET", poll) if poll else \
                    self._web.ask("POST", "api/upgrade-request", wish)
            except (Unreachable, TooSlow) as error:
                if not poll:  # nothing was accepted yet: cron asks again
                    raise
                pause, how = PAUSE, str(error)
            else:
                if reply.status == 200:
                    return reply
                pause, how = usual, _how_far(reply)
                if reply.status == 202:
                    poll = f"api/upgrade-request/{digest}"
                elif reply.status == 404 and poll:
                    poll = ""
                elif reply.status in _BUSY:
                    pause = _retry_after(reply)
                else:
                    raise _refused(reply, self.source)
            if how != told:
                self._tell(how)
                told = how
            self._pause(pause)
            usual = min(usual * 2, PAUSE)

    def _pause(self, seconds: float) -> None:
        if time.monotonic() + seconds >= self._deadline:
            raise TooSlow(f"cannot update: {self.source} has not built the image within {self.settings.deadline:g} s; "
                          "it goes on, and the next run finds it")
        time.sleep(seconds)

    def _take(self, base: str, way: Built, request: Request, me: Device) -> tuple[Outcome, str, int]:
        """Fetch and install the image. What this router asked for by its own board is for its board."""
        from fussy import install

        opened = ""

        def placing(digest: str) -> None:
            nonlocal opened
            opened = digest
            if digest in me.bad:
                raise OnlyRefused(f"cannot update: {choose.named(way.offer)} failed on this device before (see fussy "
                                  "status); a newer release or other packages are needed")

        boards = [*me.boards, f"{request.target}/{request.profile}"]
        source = Web(base, fetching.limits(self.settings, self.settings.deadline), fetching.route(self.settings))
        with self.bar("fetching") as show:
            bundle = downloads.fetch(self.place, way, [source], progress=show, troubles=self.troubles)
        self.downloaded = way.length
        if outcome := self._may_not(way):
            return outcome
        try:
            with self.bar("installing") as show:
                install.install_release(bundle, self.keyring, self.target.root, boards=boards, progress=show,
                                        accept=lambda said: ondemand.check(said.metadata, request), placing=placing)
        except (BadBundle, Untrusted, Incompatible, OnlyRefused, Reverted, Unrecoverable) as error:
            # as in a channel: for good only what is refused for good
            bad = opened in device.device(self.target, self.settings, state.load(self.target)).bad
            if bad or not isinstance(error, Reverted | Unrecoverable):
                self._spoil(Found("", 0, way.offer.digest, way.offer), str(error), for_good=bad)
            downloads.forget(self.place)
            raise
        downloads.forget(self.place)
        return self._done(way)


def describe(said: Mapping[str, Any], version: str, settings: Settings) -> Router:
    """Return what a server is told, by what the release in use SAID of itself, and for the rest by the settings.

    :raises SystemSetup: something is said nowhere
    """
    own = settings.on_demand
    texts = {name: str(said.get(name) or getattr(own, name)) for name in ("distro", "target", "profile")}
    texts["version"] = (version if said.get(ondemand.FIELD) else own.version) or version
    if missing := [name for name, text in texts.items() if not text]:
        raise SystemSetup(f"cannot ask a build server: this release does not say its {', '.join(missing)}; set it in "
                          "the table on_demand of the settings")
    words = str(said[ondemand.PACKAGES]).split() if ondemand.PACKAGES in said else own.packages
    packages = {name: version for name, _, version in (word.partition("=") for word in words)}
    return Router(packages=packages, request=str(said.get(ondemand.FIELD, "")), **texts)


def _no_server() -> str:
    raise SystemSetup("cannot ask a build server: none is set; set `server` in the table on_demand of the settings")


def read(reply: Reply, kind: type[Any], source: str, good: int = 200) -> Any:
    """Return an answer as a value of KIND.

    :raises FussyError: it is a refusal: its status is not GOOD
    """
    if reply.status != good:
        raise _refused(reply, source)
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except msgspec.MsgspecError as error:
        raise UntrustedChannel(f"{source}: it does not answer as a build server does ({error})") from error


def _refused(reply: Reply, source: str) -> FussyError:
    """Return the error for an answer that is no image: in the server's words, cut to one line."""
    try:
        said = str(msgspec.json.decode(reply.body)["error"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        said = f"HTTP status {reply.status}"
    line = printable(" ".join(said.split())[:1000])
    if reply.status in _BUSY:
        return Unreachable(f"{source}: {line}")
    kind = Incompatible if reply.status in (409, 413, 422, 501) else FussyError
    return kind(f"cannot update: the build server {source} refuses: {line}")


def _how_far(reply: Reply) -> str:
    status, place = (reply.headers.get(name, "") for name in ("X-Imagebuilder-Status", "X-Build-Queue-Position"))
    if status == "queue":
        return f"waiting: {printable(place) or 'some'} before this one"
    return {"initialize": "the server sets up its builder", "building": "being built"}.get(status, "waiting")


def _retry_after(reply: Reply) -> float:
    text = reply.headers.get("Retry-After", "")
    return min(max(float(text), PAUSE), MOST_PAUSE) if text.isascii() and text.isdigit() else PAUSE * 10
