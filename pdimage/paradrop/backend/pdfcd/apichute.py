"""The chute calls of ``/v1``, and the one way in which both APIs hand a change to the update queue."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paradrop.backend.pdfcd.changes import Change
from paradrop.lib import settings
from paradrop.lib.api import pdapi
from paradrop.lib.api.pdrest import POST, APIDecorator, APIPackage
from paradrop.lib.chute import DESCRIPTOR_KEYS
from paradrop.lib.errors import DescriptorError
from paradrop.lib.utils.ucitext import Section

if TYPE_CHECKING:
    from paradrop.backend.pdfcd.server import ParadropAPIServer


def submit(rest: "ParadropAPIServer", kind: str, descriptor: Mapping[str, Any], user: str | None = None,
           workdir: Path | None = None) -> Change:
    """Queue an update of a chute and return the change to follow.

    A workdir holds the chute's files and is removed when the change is done. Of a descriptor only the documented keys
    get into the update, so that no request can set anything else of it.

    Raises:
        DescriptorError: the descriptor has other keys, or no name.
    """
    unknown = [key for key in descriptor if key not in DESCRIPTOR_KEYS]
    if unknown:
        raise DescriptorError(f"{key}: not a key of a chute's descriptor" for key in unknown)
    name = descriptor.get("name")
    if not isinstance(name, str) or not name:
        raise DescriptorError(["name: missing"])
    return _queue(rest, kind, name, user, {**descriptor, "updateClass": "CHUTE", "workdir": workdir and str(workdir)})


def submit_config(rest: "ParadropAPIServer", file: str, sections: list[Section], user: str | None = None) -> Change:
    """Queue an update that replaces the router's own sections of a UCI file, and return the change to follow."""
    update = {"updateClass": "ROUTER", "configFile": file, "sections": sections, "workdir": None}
    return _queue(rest, "setconfig", settings.RESERVED_CHUTE, user, update)


def _queue(rest: "ParadropAPIServer", kind: str, name: str, user: str | None, update: Mapping[str, Any]) -> Change:
    change = rest.changes.add(kind, name, user)
    rest.configurer.updateList(**{**update, "updateType": kind, "name": name, "tok": int(time.time()), "pkg": change,
                                  "func": rest.complete, "user": user})
    return change


class ChuteAPI:
    """The calls that act on chutes. The answer streams the update's progress; its last line is the result."""

    def __init__(self, rest: "ParadropAPIServer") -> None:
        self.rest = rest
        rest.registerAll(self)

    @POST("^/v1/chute/create$")
    @APIDecorator(requiredArgs=["config"], permission="Chute Owner")
    def POST_createChute(theSelf, request: APIPackage) -> None:
        """Install the chute of ``config``."""
        theSelf._update("create", request)

    @POST("^/v1/chute/update$")
    @APIDecorator(requiredArgs=["config"], permission="Chute Owner")
    def POST_updateChute(theSelf, request: APIPackage) -> None:
        """Replace an installed chute by the version of ``config``."""
        theSelf._update("update", request)

    @POST("^/v1/chute/delete$")
    @APIDecorator(requiredArgs=["name"], permission="Chute Owner")
    def POST_deleteChute(theSelf, request: APIPackage) -> None:
        """Remove the chute ``name``."""
        theSelf._update("delete", request)

    @POST("^/v1/chute/start$")
    @APIDecorator(requiredArgs=["name"], permission="Chute Owner")
    def POST_startChute(theSelf, request: APIPackage) -> None:
        """Start the chute ``name``."""
        theSelf._update("start", request)

    @POST("^/v1/chute/stop$")
    @APIDecorator(requiredArgs=["name"], permission="Chute Owner")
    def POST_stopChute(theSelf, request: APIPackage) -> None:
        """Stop the chute ``name``."""
        theSelf._update("stop", request)

    def _update(self, kind: str, package: APIPackage) -> None:
        arguments = package.inputArgs
        descriptor = arguments["config"] if "config" in arguments else {"name": arguments["name"]}
        if not isinstance(descriptor, dict):
            raise pdapi.PDAPIError(pdapi.ERR_BADPARAM, "config is not a JSON object")
        try:
            change = submit(self.rest, kind, descriptor, package.devid)
        except DescriptorError as error:
            raise pdapi.PDAPIError(pdapi.ERR_BADPARAM, "; ".join(error.mistakes)) from error
        package.request.stream = self.rest.streamed(change)
        package.setNotDoneYet()
