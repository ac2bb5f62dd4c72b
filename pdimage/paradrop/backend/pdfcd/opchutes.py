"""The operations of ``/api/v1`` on chutes."""

import shutil
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from paradrop.backend.pdfcd import upload
from paradrop.backend.pdfcd.apichute import submit
from paradrop.backend.pdfcd.changes import Change
from paradrop.backend.pdfcd.containerlog import container_log
from paradrop.backend.pdfcd.opchanges import ChangeView, view_of_change
from paradrop.backend.pdfcd.operations import Accepted, Body, Call, Operation, Text, View
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import descriptor
from paradrop.lib.chute import Chute
from paradrop.lib.errors import DescriptorError
from paradrop.lib.utils import containers


class Config(Body, frozen=True):
    """A chute's descriptor, in the form of config.yaml or paradrop.yaml, a local Dockerfile put in as text."""

    config: dict[str, Any]


class Restart(Body, frozen=True):
    """Environment variables that replace the descriptor's."""

    environment: dict[str, str] | UnsetType = UNSET


class LogQuery(Body, frozen=True):
    """How much of a log."""

    follow: bool = False
    tail: Annotated[int, Meta(ge=0, le=10000)] = 200


class ContainerView(View, frozen=True):
    """How the container of a service is at this moment.

    ``state`` is what the engine says (created, running, paused, restarting, removing, exited, dead), or ``missing`` if
    the engine does not have it, or ``unknown`` if the engine does not answer; ``detail`` is a sentence of the engine's.
    """

    service: str
    state: str
    detail: str | None


class ChuteView(View, frozen=True):
    """A chute. ``state`` is what it shall be: running or stopped. ``containers`` is what is.

    ``previous`` is the version that a rollback brings back, if ``rollback`` is true.
    """

    name: str
    state: str
    containers: list[ContainerView]
    version: str | None
    description: str | None
    owner: str | None
    warning: str | None
    rollback: bool
    previous: str | None


class VersionView(View, frozen=True):
    """A version of a chute that this router can run."""

    version: str | None
    current: bool


class DescriptorView(View, frozen=True):
    """A chute's descriptor as it was given."""

    config: dict[str, Any]


def list_chutes(call: Call) -> list[ChuteView]:
    """List the chutes."""
    return _views(sorted(call.rest.storage.getChuteList(), key=lambda chute: str(chute.name)))


def create_chute(call: Call) -> Accepted:
    """Install a chute."""
    config = _checked(call.body.config)
    if call.rest.storage.getChute(config.get("name")):
        raise Problem(409, f"cannot install {config['name']}: it is here already; update it instead")
    return _accepted(submit(call.rest, "create", config, call.user))


def create_from_project(call: Call) -> Accepted:
    """Install a chute from the tar of its directory, with a paradrop.yaml or config.yaml at the top."""
    return _from_project(call, "create", None)


def update_from_project(call: Call) -> Accepted:
    """Replace a chute by the version in the tar of its directory."""
    return _from_project(call, "update", str(_chute(call).name))


def _from_project(call: Call, kind: str, name: str | None) -> Accepted:
    directory, config = upload.unpack(call.body)
    try:
        _checked(config)
        if name is None and call.rest.storage.getChute(config["name"]):
            raise Problem(409, f"cannot install {config['name']}: it is here already; update it instead")
        if name not in (None, config["name"]):
            raise DescriptorError([f"name: not {name}"])
        return _accepted(submit(call.rest, kind, config, call.user, directory))
    except Exception:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def get_chute(call: Call) -> ChuteView:
    """Show a chute."""
    return _views([_chute(call)])[0]


def update_chute(call: Call) -> Accepted:
    """Replace a chute by another version of it."""
    chute = _chute(call)
    config = _checked(call.body.config)
    if config.get("name") != chute.name:
        raise DescriptorError([f"name: not {chute.name}"])
    return _accepted(submit(call.rest, "update", config, call.user))


def delete_chute(call: Call) -> Accepted:
    """Remove a chute, and its data."""
    return _simple("delete")(call)


def start_chute(call: Call) -> Accepted:
    """Start a chute."""
    return _simple("start")(call)


def stop_chute(call: Call) -> Accepted:
    """Stop a chute."""
    return _simple("stop")(call)


def restart_chute(call: Call) -> Accepted:
    """Restart a chute, with other environment variables if any are given."""
    chute = _chute(call)
    changed = {} if call.body.environment is UNSET else {"environment": call.body.environment}
    return _accepted(submit(call.rest, "restart", {"name": chute.name, **changed}, call.user))


def list_versions(call: Call) -> list[VersionView]:
    """List the versions of a chute: the current one, and the one before it."""
    chute = _chute(call)
    previous = previous_descriptor(chute)
    views = [VersionView(version=_version(chute.descriptor), current=True)]
    return views + ([VersionView(version=_version(previous), current=False)] if previous else [])


def rollback_chute(call: Call) -> Accepted:
    """Bring back the previous version of a chute."""
    chute = _chute(call)
    if not previous_descriptor(chute):
        raise Problem(409, f"cannot roll back {chute.name}: there is no previous version of it")
    return _simple("rollback")(call)


def get_descriptor(call: Call) -> DescriptorView:
    """Show the descriptor of a chute, its passwords included."""
    return DescriptorView(config=_chute(call).descriptor)


def get_chute_log(call: Call) -> Text:
    """Read what a chute has written to its standard output and error."""
    return Text(container_log(str(_chute(call).name), call.query.tail, call.query.follow))


def previous_descriptor(chute: Chute) -> dict[str, Any] | None:
    """Return the descriptor that the chute had before its last update, None if there is none."""
    previous = chute.getCache("previous")
    return dict(previous) if previous else None


def _simple(kind: str) -> Callable[[Call], Accepted]:
    return lambda call: _accepted(submit(call.rest, kind, {"name": _chute(call).name}, call.user))


def _chute(call: Call) -> Chute:
    chute = call.rest.storage.getChute(call.path["name"])
    if chute is None:
        raise Problem(404, f"there is no chute {call.path['name']}")
    return chute


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptor; all its mistakes are raised together, before anything is queued."""
    mistakes = descriptor.mistakes(config)
    if mistakes:
        raise DescriptorError(mistakes)
    return config


def _accepted(change: Change) -> Accepted:
    return Accepted(view_of_change(change), f"/api/v1/changes/{change.id}")


def _version(content: Mapping[str, Any]) -> str | None:
    version = content.get("version")
    return None if version is None else str(version)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _views(chutes: list[Chute]) -> list[ChuteView]:
    """Return the views of chutes. The engine is asked once, and not at all where no chute has a container."""
    live = containers.live() if any(map(containers.recorded, chutes)) else {}
    return [_view(chute, live) for chute in chutes]


def _container(service: str, found: tuple[str, str] | None) -> ContainerView:
    state, detail = found or ("missing", None)
    return ContainerView(service=service, state=state, detail=detail)


def _view(chute: Chute, live: Mapping[str, tuple[str, str]] | None) -> ChuteView:
    content, previous = chute.descriptor, previous_descriptor(chute)
    unknown = ("unknown", "the engine does not answer")
    return ChuteView(
        name=str(chute.name), state=chute.state, warning=chute.warning, version=_version(content),
        containers=[_container(service, unknown if live is None else live.get(number))
                    for service, number in containers.recorded(chute).items()],
        description=_text(content.get("description")), owner=_text(content.get("owner")),
        rollback=previous is not None, previous=_version(previous or {}))


_ONE = "/api/v1/chutes/{name}"
OPERATIONS = [
    Operation("GET", "/api/v1/chutes", list_chutes, "viewer", list[ChuteView]),
    Operation("POST", "/api/v1/chutes", create_chute, "operator", ChangeView, Config, status=202, errors=(409,)),
    Operation("POST", "/api/v1/projects", create_from_project, "operator", ChangeView, "application/x-tar", status=202,
              errors=(409,)),
    Operation("PUT", "/api/v1/projects/{name}", update_from_project, "operator", ChangeView, "application/x-tar",
              status=202, errors=(404, 409)),
    Operation("GET", _ONE, get_chute, "viewer", ChuteView, errors=(404,)),
    Operation("PUT", _ONE, update_chute, "operator", ChangeView, Config, status=202, errors=(404, 409)),
    Operation("DELETE", _ONE, delete_chute, "operator", ChangeView, status=202, errors=(404,)),
    Operation("POST", f"{_ONE}/start", start_chute, "operator", ChangeView, status=202, errors=(404,)),
    Operation("POST", f"{_ONE}/stop", stop_chute, "operator", ChangeView, status=202, errors=(404,)),
    Operation("POST", f"{_ONE}/restart", restart_chute, "operator", ChangeView, Restart, status=202, errors=(404,)),
    Operation("GET", f"{_ONE}/versions", list_versions, "viewer", list[VersionView], errors=(404,)),
    Operation("POST", f"{_ONE}/rollback", rollback_chute, "operator", ChangeView, status=202, errors=(404, 409)),
    Operation("GET", f"{_ONE}/config", get_descriptor, "operator", DescriptorView, errors=(404,)),
    Operation("GET", f"{_ONE}/logs", get_chute_log, "viewer", "text/plain", query=LogQuery, errors=(404,)),
]
