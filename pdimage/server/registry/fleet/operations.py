"""Every address of the fleet, with what it takes and answers: those for people, and hawkBit's for devices."""

from typing import get_args

from pdimage.server.operations import ANY, FLAG, NUMBER, TEXT, Operation, Schema, fields, listed, mapped
from pdimage.server.registry.fleet.api import FleetApi
from pdimage.server.registry.fleet.ddi import Ddi, Execution
from pdimage.server.registry.fleet.desk import Fleet
from pdimage.server.registry.fleet.states import OPEN
from pdimage.server.registry.operations import ASKED, HERE, SENT, TIME

STATE: Schema = {"enum": ["proposed", "running", "paused", "stopped", "finished", "cancelled"]}
ACTION_STATE: Schema = {"enum": [*OPEN, "done", "failed", "cancelled"]}
SOME_TIME: Schema = {"type": ["number", "null"]}
PERCENT: Schema = {"type": "number", "minimum": 0, "maximum": 100}

GROUP = fields("account name note made routers", account=TEXT, name=TEXT, note=TEXT, made=TIME, routers=NUMBER)
DOING = fields("rollout release version state reason changed", rollout=NUMBER, release=TEXT, version=TEXT,
               state=ACTION_STATE, reason=TEXT, changed=TIME)
STANDING = fields("pdid account name group awake seen release version paradrop outcome action attributes incident",
                  pdid=TEXT, account=TEXT, name=TEXT, group=TEXT, awake=FLAG, seen=SOME_TIME, release=TEXT,
                  version=TEXT, paradrop=TEXT, outcome={}, action={"anyOf": [DOING, {"type": "null"}]},
                  attributes=mapped(TEXT), incident=TEXT)
FLEET = fields("routers numbers incidents", routers=listed(STANDING), numbers=fields(
    "routers awake open failed", routers=NUMBER, awake=NUMBER, open=NUMBER, failed=NUMBER),
    incidents=listed(fields("pdid incident", pdid=TEXT, incident=TEXT)))
KNOWN = fields("id title version size", id=TEXT, title=TEXT, version=TEXT, size=NUMBER)
PLAN = fields("", steps=listed({"type": "number", "exclusiveMinimum": 0, "maximum": 100}), failures=PERCENT,
              least={"type": "integer", "minimum": 1, "maximum": 1_000_000}, success=PERCENT,
              seconds={"type": "number", "minimum": 0, "maximum": 31_536_000})
WISH = fields("release", release=TEXT, group=TEXT, account=TEXT, plan=PLAN, window=TEXT, zone=TEXT, forced=FLAG,
              confirm=FLAG, approval=FLAG)
COUNTS = fields(f"{' '.join(OPEN)} done failed cancelled", **dict.fromkeys(
    [*OPEN, "done", "failed", "cancelled"], NUMBER))
ROLLOUT = fields(
    "id account group release title version plan window zone forced confirm state step steps since reason made "
    "made_by approved_by ended counts by_step", id=NUMBER, account=TEXT, group=TEXT, release=TEXT, title=TEXT,
    version=TEXT, plan=ANY, window=TEXT, zone=TEXT, forced=FLAG, confirm=FLAG, state=STATE, step=NUMBER, steps=NUMBER,
    since=TIME, reason=TEXT, made=TIME, made_by=TEXT, approved_by=TEXT, ended=SOME_TIME, counts=COUNTS,
    by_step=listed({"anyOf": [COUNTS, {"type": "null"}]}))
ACTION = fields("id pdid step state reason messages made changed ended", id=NUMBER, pdid=TEXT, step=NUMBER,
                state=ACTION_STATE, reason=TEXT, messages=listed(TEXT), made=TIME, changed=TIME, ended=SOME_TIME)

LINKS = mapped(fields("href", href=TEXT))
BASE = fields("config _links", config=ANY, _links=LINKS)
WANTED = fields("download update chunks", download=TEXT, update=TEXT, chunks=listed(ANY))
DEPLOYMENT = fields("id deployment", id=TEXT, deployment=WANTED, actionHistory=ANY)
UNCONFIRMED = fields("id confirmation", id=TEXT, confirmation=WANTED, actionHistory=ANY)
CONFIRMATIONS = fields("autoConfirm _links", autoConfirm=fields(
    "active", active=FLAG, initiator=TEXT, remark=TEXT, activatedAt=NUMBER), _links=LINKS)
CONFIRMATION = fields("confirmation", confirmation={"enum": ["confirmed", "denied"]}, code=NUMBER, details=listed(TEXT))
ARTIFACT = fields("filename hashes size _links", filename=TEXT, hashes=mapped(TEXT), size=NUMBER, _links=LINKS)
ATTRIBUTES = fields("data", data=mapped({"type": "string", "maxLength": 512}),
                    mode={"enum": ["merge", "replace", "remove"]})
FEEDBACK = fields("status", status=fields(
    "execution result", details=listed(TEXT), result=fields("finished", finished={
        "enum": ["success", "failure", "none"]}), execution={"enum": list(get_args(Execution))}))


def operations(fleet: Fleet) -> list[Operation]:
    """Return the operations of the fleet."""
    api = FleetApi(fleet)
    return [*_groups(api), *_rollouts(api), *_devices(Ddi(fleet.registry.settings, fleet.actions, fleet.releases))]


def _groups(api: FleetApi) -> list[Operation]:
    one = f"{HERE}/groups/{{group}}"
    member = f"{one}/routers/{{router}}"
    return [
        Operation("GET", f"{HERE}/fleet", api.fleet_list, {200: FLEET}, (*ASKED, 400, 404),
                  query=["group", "after", "limit"], secured=True),
        Operation("GET", f"{HERE}/groups", api.groups_list, {200: fields("groups", groups=listed(GROUP))}, ASKED,
                  secured=True),
        Operation("PUT", one, api.put_group, {200: GROUP}, (*SENT, 401, 403, 404, 409),
                  fields("", note={"type": "string", "maxLength": 200}), secured=True),
        Operation("DELETE", one, api.delete_group, {204: None}, (*ASKED, 404, 409), secured=True),
        Operation("PUT", member, api.join_group, {204: None}, (*ASKED, 404, 409), secured=True),
        Operation("DELETE", member, api.leave_group, {204: None}, (*ASKED, 404, 409), secured=True),
    ]


def _rollouts(api: FleetApi) -> list[Operation]:
    one = f"{HERE}/rollouts/{{rollout}}"
    led = {200: ROLLOUT}, (*ASKED, 404, 409)
    return [
        Operation("GET", f"{HERE}/releases", api.releases, {200: fields("releases", releases=listed(KNOWN))}, ASKED,
                  secured=True),
        Operation("GET", f"{HERE}/rollouts", api.rollouts_list, {200: fields("rollouts", rollouts=listed(ROLLOUT))},
                  (*ASKED, 400), query=["before", "limit"], secured=True),
        Operation("POST", f"{HERE}/rollouts", api.start_rollout, {201: ROLLOUT}, (*SENT, 401, 403, 404, 409), WISH,
                  secured=True),
        Operation("GET", one, api.show_rollout, {200: ROLLOUT}, (*ASKED, 404), secured=True),
        Operation("GET", f"{one}/routers", api.rollout_routers, {200: fields("routers", routers=listed(ACTION))},
                  (*ASKED, 400, 404), query=["after", "limit"], secured=True),
        Operation("POST", f"{one}/approve", api.approve_rollout, *led, secured=True),
        Operation("POST", f"{one}/pause", api.pause_rollout, *led, secured=True),
        Operation("POST", f"{one}/resume", api.resume_rollout, *led, secured=True),
        Operation("POST", f"{one}/cancel", api.cancel_rollout, *led, secured=True),
        Operation("POST", f"{one}/quit", api.quit_rollout, {200: ROLLOUT}, (*SENT, 401, 403, 404, 409),
                  fields("", routers=listed(TEXT)), secured=True),
    ]


def _devices(ddi: Ddi) -> list[Operation]:
    here = "/{tenant}/controller/v1/{controller}"
    confirm = f"{here}/confirmationBase"
    module = f"{here}/softwaremodules/{{module}}/artifacts"
    asked, said = (401, 404, 503), (*SENT, 401, 404, 410)
    file = {200: None, 206: None, 400: None, 416: None}
    return [
        Operation("GET", here, ddi.base, {200: BASE}, (401, 503)),
        Operation("PUT", f"{here}/configData", ddi.config_data, {200: None}, (*SENT, 401), ATTRIBUTES),
        Operation("GET", f"{here}/deploymentBase/{{action}}", ddi.deployment, {200: DEPLOYMENT}, asked),
        Operation("POST", f"{here}/deploymentBase/{{action}}/feedback", ddi.feedback, {200: None}, said, FEEDBACK),
        Operation("GET", confirm, ddi.confirmations, {200: CONFIRMATIONS}, (401, 503)),
        Operation("POST", f"{confirm}/activateAutoConfirm", ddi.agree, {200: None}, (*SENT, 401, 409),
                  fields("", initiator={"type": "string", "maxLength": 64},
                         remark={"type": "string", "maxLength": 512})),
        Operation("POST", f"{confirm}/deactivateAutoConfirm", ddi.disagree, {200: None}, (401, 503)),
        Operation("GET", f"{confirm}/{{action}}", ddi.unconfirmed, {200: UNCONFIRMED}, asked),
        Operation("POST", f"{confirm}/{{action}}/feedback", ddi.confirm, {200: None}, said, CONFIRMATION),
        Operation("GET", f"{here}/cancelAction/{{action}}", ddi.cancel,
                  {200: fields("id cancelAction", id=TEXT, cancelAction=fields("stopId", stopId=TEXT))}, asked),
        Operation("POST", f"{here}/cancelAction/{{action}}/feedback", ddi.cancel_feedback, {200: None}, said, FEEDBACK),
        Operation("GET", f"{here}/installedBase/{{action}}", ddi.installed, {200: DEPLOYMENT}, asked),
        Operation("GET", module, ddi.artifacts, {200: listed(ARTIFACT)}, asked),
        Operation("GET", f"{module}/{{file}}", ddi.artifact, file, asked, media="application/octet-stream"),
    ]
