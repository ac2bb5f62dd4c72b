"""Eclipse hawkBit's Direct Device Integration API (DDI), version 1, as its documents and its clients have it.

A tenant is an account, a controller one of its routers. A device asks ``GET /TENANT/controller/v1/ID`` again and again
and follows the links that it finds there::

    configData        tell attributes, once
    confirmationBase  what somebody at the device is to agree to first
    deploymentBase    what to install; fetching it begins the action
    cancelAction      let go of it, if that is still possible
    installedBase     what was installed last

and says how it goes by ``feedback``. It proves who it is by ``Authorization: TargetToken T``, which it got when it was
provisioned, or ``GatewayToken T`` of the setting ``gateway_token``. What the documents leave open:

- a held router says ``proceeding`` and why, the first line beginning with ``held:``, ``postponed:``,
  ``outside-window:``, ``notify-only:`` or ``off:``, as ``fussy-update`` calls it; so is one that says ``rejected`` or
  ``scheduled``;
- the same ``closed`` again is 200, another word on what is closed is 410;
- what is denied stays there to be confirmed; the same ``confirmed`` again is 200, ``denied`` after it 410.
"""

import hmac
import re
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server import names
from pdimage.server.asu import address
from pdimage.server.http import answer, client_of, in_thread
from pdimage.server.refusals import Refused
from pdimage.server.registry.accounts import digest
from pdimage.server.registry.fleet.actions import Actions, Deployment, Device, View
from pdimage.server.registry.fleet.releases import Artifact, Releases
from pdimage.server.registry.fleet.states import ActionEvent
from pdimage.server.registry.reading import read
from pdimage.server.settings import Settings

_HELD = re.compile(r"(held|postponed|outside-window|notify-only|off)\b")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_Text = Annotated[str, msgspec.Meta(max_length=4096)]

Execution = Literal["canceled", "rejected", "closed", "download", "downloaded", "proceeding", "scheduled", "resumed"]


class Progress(msgspec.Struct, frozen=True):
    """How far a device is: ``cnt`` of ``of``. It is not kept, but must be what it is called."""

    cnt: int | None = None
    of: int | None = None


class Result(msgspec.Struct, frozen=True):
    """How it ended, if it did."""

    finished: Literal["success", "failure", "none"]
    progress: Progress | None = None


class Status(msgspec.Struct, frozen=True):
    """What a device does."""

    execution: Execution
    result: Result
    details: Annotated[list[_Text], msgspec.Meta(max_length=256)] | None = None


class Feedback(msgspec.Struct, frozen=True):
    """What a device says of an action. Clients send ``id`` and ``time`` beside, which nobody needs."""

    status: Status


class Confirmation(msgspec.Struct, frozen=True):
    """Whether somebody at a device agrees to a deployment."""

    confirmation: Literal["confirmed", "denied"]
    code: int | None = None
    details: Annotated[list[_Text], msgspec.Meta(max_length=256)] | None = None


class Agreement(msgspec.Struct, frozen=True):
    """Somebody at a device who agrees to all that comes."""

    initiator: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    remark: Annotated[str, msgspec.Meta(max_length=512)] | None = None


class Attributes(msgspec.Struct, frozen=True):
    """What a device says of itself."""

    data: Annotated[dict[Annotated[str, msgspec.Meta(max_length=128)], Annotated[str, msgspec.Meta(max_length=512)]],
                    msgspec.Meta(max_length=64)]
    mode: Literal["merge", "replace", "remove"] = "merge"


class Ddi:
    """The handlers."""

    def __init__(self, settings: Settings, actions: Actions, releases: Releases) -> None:
        self._settings = settings
        self._actions = actions
        self._releases = releases

    async def base(self, request: Request) -> Response:
        """Tell a device what is there for it."""
        device = await self._device(request)
        here = self._here(request)
        links = {}
        if not device.is_known:
            links["configData"] = f"{here}/configData"
        if device.action is not None:
            what = {"cancelling": "cancelAction", "unconfirmed": "confirmationBase"}.get(
                device.state or "", "deploymentBase")
            links[what] = f"{here}/{what}/{device.action}"
        if device.installed is not None:
            links["installedBase"] = f"{here}/installedBase/{device.installed}"
        return answer({"config": {"polling": {"sleep": clock(self._settings.poll_seconds)}}, "_links": _hrefs(links)})

    async def config_data(self, request: Request) -> Response:
        """Take down the attributes of a device."""
        device = await self._device(request)
        told = await read(request, self._settings, Attributes)
        await in_thread(self._actions.tell, device.pdid, told.data, told.mode)
        return Response()

    async def deployment(self, request: Request) -> Response:
        """Tell a device what it is to install."""
        return await self._show(request, "deploymentBase")

    async def installed(self, request: Request) -> Response:
        """Tell a device what it installed."""
        return await self._show(request, "installedBase")

    async def unconfirmed(self, request: Request) -> Response:
        """Tell a device what it would install if somebody there agreed."""
        return await self._show(request, "confirmationBase")

    async def confirmations(self, request: Request) -> Response:
        """Tell a device whether somebody there has agreed to all that comes, and what is to be confirmed."""
        device, here = await self._device(request), f"{self._here(request)}/confirmationBase"
        found = await in_thread(self._actions.agreed, device.pdid)
        state = {"active": True, "initiator": found.initiator, "remark": found.remark,
                 "activatedAt": int(1000 * found.since)} if found else {"active": False}
        switch = "deactivateAutoConfirm" if found else "activateAutoConfirm"
        links = {switch: f"{here}/{switch}"}
        if device.state == "unconfirmed":
            links["confirmationBase"] = f"{here}/{device.action}"
        return answer({"autoConfirm": state, "_links": _hrefs(links)})

    async def confirm(self, request: Request) -> Response:
        """Take down whether somebody at a device agrees to a deployment."""
        device = await self._device(request)
        said = await read(request, self._settings, Confirmation)
        code = [] if said.code is None else [f"confirmation code {said.code}"]
        await in_thread(lambda: self._actions.confirm(device.pdid, _number(request), [*lines(said.details), *code],
                                                      agrees=said.confirmation == "confirmed"))
        return Response()

    async def agree(self, request: Request) -> Response:
        """Have somebody at a device agree to all that comes."""
        device = await self._device(request)
        said = await read(request, self._settings, Agreement)
        initiator, remark = (" ".join(lines([text or ""])) for text in (said.initiator, said.remark))
        await in_thread(self._actions.agree, device.pdid, initiator, remark)
        return Response()

    async def disagree(self, request: Request) -> Response:
        """Have each deployment wait until it is confirmed."""
        device = await self._device(request)
        await in_thread(self._actions.disagree, device.pdid)
        return Response()

    async def feedback(self, request: Request) -> Response:
        """Take down what a device says of a deployment."""
        device = await self._device(request)
        status = (await read(request, self._settings, Feedback)).status
        await in_thread(self._actions.report, device.pdid, _number(request), event(status),
                        lines(status.details))
        return Response()

    async def cancel(self, request: Request) -> Response:
        """Tell a device which action it is to let go of."""
        device = await self._device(request)
        number = _number(request)
        if device.state != "cancelling" or device.action != number:
            raise Refused(404, f"action {number} of this device is not to be cancelled")
        return answer({"id": str(number), "cancelAction": {"stopId": str(number)}})

    async def cancel_feedback(self, request: Request) -> Response:
        """Take down whether a device let go."""
        device = await self._device(request)
        status = (await read(request, self._settings, Feedback)).status
        await in_thread(self._actions.report, device.pdid, _number(request), cancel_event(status),
                        lines(status.details))
        return Response()

    async def artifacts(self, request: Request) -> Response:
        """List the files of a module, which is what a roll-out is to a device."""
        device = await self._device(request)
        module = _number(request, "module")
        found = await in_thread(self._actions.files, device.pdid, module)
        return answer([_artifact(one, f"{self._here(request)}/softwaremodules/{module}") for one in found])

    async def artifact(self, request: Request) -> Response:
        """Send a file, or the part of it that is asked for; NAME.MD5SUM is its MD5 as ``md5sum`` checks it."""
        device = await self._device(request)
        name, summed = request.path_params["file"], False
        if name.endswith(".MD5SUM"):
            name, summed = name.removesuffix(".MD5SUM"), True
        if not names.is_good("file", name):
            raise Refused(404, "there is no such file for this device")
        release, found = await in_thread(self._actions.artifact, device.pdid, _number(request, "module"), name)
        if summed:
            return Response(f"{found.md5}  {found.name}\n", media_type="text/plain")
        return self._releases.send(request, release, found)

    async def _show(self, request: Request, view: View) -> Response:
        device = await self._device(request)
        found = await in_thread(self._actions.deployment, device.pdid, _number(request), view)
        name = "confirmation" if view == "confirmationBase" else "deployment"
        return answer(document(found, self._here(request), name))

    async def _device(self, request: Request) -> Device:
        """Return the device that asks.

        :raises Refused: it does not prove that it is this one (401)
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        pdid = f"pd.{request.path_params['tenant']}.{request.path_params['controller']}"
        device = await in_thread(self._actions.device, pdid) if names.is_good("pdid", pdid) else None
        own = device.token if device else ""
        gateway = self._settings.gateway_token
        good = {"targettoken": bool(own) and hmac.compare_digest(own, digest(token)),
                "gatewaytoken": bool(gateway) and hmac.compare_digest(digest(gateway), digest(token))}
        if device is None or not good.get(scheme.lower()):
            raise Refused(401, "this device is not known here, or its token is wrong",
                          {"WWW-Authenticate": "TargetToken, GatewayToken"})
        self._actions.saw(device.pdid, client_of(request))
        return device

    def _here(self, request: Request) -> str:
        tenant, controller = request.path_params["tenant"], request.path_params["controller"]
        return f"{address(request, self._settings.url)}/{tenant}/controller/v1/{controller}"


def _number(request: Request, name: str = "action") -> int:
    text = request.path_params[name]
    if not _NUMBER.fullmatch(text):
        raise Refused(404, f"there is nothing of the number {names.shown(text)} for this device")
    return int(text)


def event(status: Status) -> ActionEvent:
    """Return what it means for the action that a device says this of a deployment."""
    match status.execution:
        case "closed":
            return "fail" if status.result.finished == "failure" else "succeed"
        case "rejected" | "scheduled":
            return "hold"
        case "canceled":
            return "acknowledge"
        case "proceeding" if status.details and _HELD.match(status.details[0]):
            return "hold"
    return "begin"


def cancel_event(status: Status) -> ActionEvent:
    """Return what it means for the action that a device says this of being asked to let go of it."""
    match status.execution:
        case "rejected":
            return "refuse"
        case "closed":
            return "refuse" if status.result.finished == "failure" else "acknowledge"
        case "canceled":
            return "acknowledge"
    return "begin"


def lines(details: list[str] | None) -> list[str]:
    """Return what a device said for people, without what could steer a terminal."""
    found = ["".join(one if one.isprintable() else " " for one in line).strip() for line in details or ()]
    return [line for line in found if line]


def clock(seconds: int) -> str:
    """Return a time as hawkBit writes how long to sleep.

    >>> clock(90), clock(86400)
    ('00:01:30', '23:59:59')
    """
    seconds = min(seconds, 86399)
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


def document(found: Deployment, here: str, name: str) -> dict[str, Any]:
    """Return what a device gets to know of a deployment; HERE is its own address, NAME what it is called there."""
    module = f"{here}/softwaremodules/{found.rollout}"
    how = "forced" if found.forced else "attempt"
    deployment: dict[str, Any] = {"download": how, "update": "skip" if found.is_open is False else how}
    if found.is_open is not None:
        deployment["maintenanceWindow"] = "available" if found.is_open else "unavailable"
    deployment["chunks"] = [{
        "part": "os", "version": found.version or "0", "name": found.title,
        "artifacts": [_artifact(one, module) for one in found.artifacts],
        "metadata": [*([{"key": "digest", "value": found.digest}] if found.digest else []),
                     *({"key": f"base:{one.name}", "value": one.base} for one in found.artifacts if one.base)]}]
    document: dict[str, Any] = {"id": str(found.action), name: deployment}
    if found.messages:
        document["actionHistory"] = {"status": found.state.upper(), "messages": list(found.messages)}
    return document


def _hrefs(links: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"href": link} for name, link in links.items()}


def _artifact(one: Artifact, module: str) -> dict[str, Any]:
    """Return a file as devices read of it. One address is enough; clients look for it by two names."""
    link = {"href": f"{module}/artifacts/{one.name}"}
    sums = {"href": f"{link['href']}.MD5SUM"}
    links = {"download": link, "md5sum": sums}
    if link["href"].startswith("http:"):
        links |= {"download-http": link, "md5sum-http": sums}
    return {"filename": one.name, "hashes": {"sha1": one.sha1, "md5": one.md5, "sha256": one.sha256},
            "size": one.size, "_links": links}
