"""The table of permissions, every cell of it, through the API: each role with what is its own and what is another's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from pdimage.server.registry.permissions import ACTIONS, ROLES, Action, Role
from tests.registry.conftest import AMPLE, Person, administrator, register
from tests.registry.fleets import put_file
from tests.server.serverprocess import Server

# What is asked for an action that concerns a thing of somebody: NAME is his account, NUMBER that of his roll-out.
PROBES: Mapping[Action, list[tuple[str, str]]] = {
    "router.read": [("GET", "/routers/pd.NAME.mine"), ("GET", "/routers/pd.NAME.mine/api/v1/status"),
                    ("GET", "/routers/pd.NAME.mine/v1/x")],
    "router.provision": [("POST", "/routers/pd.NAME.mine/provision")],
    "router.lead": [("DELETE", "/routers/pd.NAME.mine/incident"),
                    ("POST", "/routers/pd.NAME.mine/api/v1/x"), ("DELETE", "/routers/pd.NAME.mine/api/v1/x"),
                    ("PUT", "/routers/pd.NAME.mine/v1/x")],
    "router.delete": [("DELETE", "/routers/pd.NAME.ROLE")],
    "group.read": [("GET", "/fleet?group=NAME.mine")],
    "group.change": [("PUT", "/groups/NAME.mine"), ("PUT", "/groups/NAME.mine/routers/pd.NAME.mine"),
                     ("DELETE", "/groups/NAME.ROLE")],
    "rollout.read": [("GET", "/rollouts/NUMBER"), ("GET", "/rollouts/NUMBER/routers")],
    "rollout.lead": [("POST", "/rollouts/NUMBER/pause"), ("POST", "/rollouts/NUMBER/resume"),
                     ("POST", "/rollouts/NUMBER/quit")],
    "rollout.approve": [("POST", "/rollouts/NUMBER/approve")],
}
# What concerns nothing of anybody in particular.
PLAIN: Mapping[Action, list[tuple[str, str, object]]] = {
    "account.read": [("GET", "/account", None), ("GET", "/tokens", None)],
    "account.change": [("POST", "/tokens", {"label": "more"})],
    "router.make": [("POST", "/routers", {"name": "more"})],
    "accounts.read": [("GET", "/accounts", None)],
    "accounts.change": [("PUT", "/accounts/nobody00", {}), ("POST", "/accounts/nobody00/reset", None),
                        ("POST", "/accounts/x/invite", None)],
    "accounts.delete": [("DELETE", "/accounts/nobody00", None)],
}
# Lists, which show what is within reach.
LISTS: Mapping[Action, str] = {"router.read": "/routers", "group.read": "/groups", "rollout.read": "/rollouts",
                               "audit.read": "/audit?limit=1000"}


@dataclass
class Place:
    """A server with somebody of each role, and a stranger. All have the same things."""

    server: Server
    people: dict[Role, Person]
    readers: dict[Role, Person]
    stranger: Person
    numbers: dict[str, int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    server = Server(tmp_path_factory.mktemp("registry") / "data", AMPLE).start("--no-worker")
    boss, release = administrator(server), put_file(server, "8")
    numbers = {}

    def come(name: str) -> Person:
        """Register, and have routers, groups, and a roll-out that wants approval."""
        person = register(server, name)
        for mine in ("mine", *ROLES):
            assert person.post("/routers", {"name": mine}).status == 201
            assert person.ask("PUT", f"/groups/{mine}", {}).status == 200
        made = boss.post("/rollouts", {"release": release, "account": name, "approval": True})
        assert made.status == 201, made.data
        numbers[name] = made.body["id"]
        return person

    stranger, people, readers = come("stranger0"), {}, {}
    for role in ROLES:
        people[role] = come(f"some{role}")
        token = people[role].post("/tokens", {"label": "reader", "read": True}).body["token"]
        readers[role] = Person(server, people[role].name, token)
        assert boss.ask("PUT", f"/accounts/some{role}", {"role": role}).status == 200
    yield Place(server, people, readers, stranger, numbers)
    server.close()


def status(place: Place, who: Person, role: Role, method: str, path: str, owner: str) -> int:
    path = path.replace("NAME", owner).replace("NUMBER", str(place.numbers[owner])).replace("ROLE", role)
    return who.ask(method, path, {} if method in ("POST", "PUT") else None).status


def may(status: int) -> bool:
    """Tell whether it was allowed; that the router sleeps, or that it can't be done now, is another matter."""
    assert status not in (401, 500)
    return status in (200, 201, 204, 400, 409, 503)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_cell(place: Place, role: Role, action: Action) -> None:
    reach, reads = getattr(ACTIONS[action], role), ACTIONS[action].reads
    person, reader, others = place.people[role], place.readers[role], place.stranger.name
    for method, path in PROBES.get(action, []):
        if not reads:
            assert status(place, reader, role, method, path, reader.name) == 403
        elif reach != "none":
            assert may(status(place, reader, role, method, path, reader.name))
        for owner, allowed in ((person.name, reach != "none"), (others, reach == "all")):
            found = status(place, person, role, method, path, owner)
            assert may(found) if allowed else found == (403 if reach == "none" else 404), (method, path, owner, found)
    for method, path, body in PLAIN.get(action, []):
        assert (reader.ask(method, path, body).status == 403) == (reach == "none" or not reads)
        assert (person.ask(method, path, body).status == 403) == (reach == "none")
    if action in LISTS:
        for who in (person, reader):
            shown = who.get(LISTS[action])
            assert shown.status == 200
            assert (others in str(shown.body), person.name in str(shown.body)) == (reach == "all", True)
    assert action in {*PROBES, *PLAIN, *LISTS}


def test_nobody_may_do_anything(place: Place) -> None:
    paths = {(one.upper(), path) for path, operations in place.server.get("/openapi.json").body["paths"].items()
             for one, described in operations.items() if "security" in described}
    assert len(paths) > 25
    for token in ("", "nonsense", place.stranger.token[:-1]):
        for method, path in paths:
            found = Person(place.server, token=token).ask(method, path.removeprefix("/registry/v1"))
            assert (method, path, found.status) == (method, path, 401)
