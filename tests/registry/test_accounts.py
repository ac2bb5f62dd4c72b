"""Accounts: registering, logging in and out, tokens, who is locked out, resets, and what administrators do."""

import asyncio
import contextlib
import os
import pty
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from pdimage.server.refusals import Refused
from pdimage.server.registry.passwords import AT_ONCE, WAITING, Passwords
from tests.registry.conftest import (
    HERE,
    PASSWORD,
    SMALL,
    Person,
    administrator,
    database,
    log_in,
    pdimage,
    register,
    try_to_log_in,
)
from tests.registry.fleets import begin, put_file
from tests.server.conftest import Start
from tests.server.serverprocess import Answered, Server

OTHER = "battery staple"


def test_register_log_in_and_out(either: Server) -> None:
    server, joe = either, register(either, "JoeSmith")
    assert joe.get("/account").body == {"name": "JoeSmith", "role": "user", "read": False}
    again = log_in(server, "joesmith")
    assert [token["kind"] for token in joe.get("/tokens").body["tokens"]] == ["login", "login"]
    assert joe.post("/logout").status == 204
    assert joe.get("/account").body["error"] == "this login has ended; log in again: paradrop login"
    assert again.get("/account").status == 200
    assert Person(server).post("/accounts", {"name": "joeSMITH", "password": PASSWORD}).body["error"] \
        == "the name joeSMITH is taken; choose another one"
    made = again.post("/routers", {"name": "aardvark"})
    assert (made.status, made.body["pdid"]) == (201, "pd.JoeSmith.aardvark")
    assert again.get("/routers/AARDVARK").body["pdid"] == "pd.JoeSmith.aardvark"
    assert again.post("/routers", {"name": "AARDVARK"}).status == 409
    entries = again.get("/audit").body["entries"]
    assert [entry["action"] for entry in entries] == [
        "router.make", "token.end", "token.make", "token.make", "account.add"]
    assert (entries[0]["who"], entries[0]["address"], entries[0]["subject"]) == (
        "JoeSmith", again.address, "pd.JoeSmith.aardvark")


@pytest.mark.parametrize(("name", "password", "said"), [
    ("joe", PASSWORD, "the name must have 8 to 32 letters and digits (a-z, A-Z, 0-9)"),
    ("j" * 33, PASSWORD, "the name must have 8 to 32"),
    ("joe.smith", PASSWORD, "the name must have 8 to 32"),
    ("joesmith\n", PASSWORD, "the name must have 8 to 32"),
    ("joesmíth", PASSWORD, "the name must have 8 to 32"),
    ("joesmith2", "1234567", "the password must have 8 to 200 characters"),
    ("joesmith2", "p" * 201, "the password must have 8 to 200 characters")])
def test_names_and_passwords_that_cannot_be(either: Server, name: str, password: str, said: str) -> None:
    refused = either.post(f"{HERE}/accounts", {"name": name, "password": password})
    assert (refused.status, refused.body["error"].startswith(said)) == (400, True)


def test_a_new_password_ends_all_that_was_before(joe: Person) -> None:
    named = joe.post("/tokens", {"label": "nagios"}).body["token"]
    wrong = joe.ask("PUT", "/account/password", {"old": OTHER, "new": OTHER})
    assert (wrong.status, wrong.body["error"]) == (401, "the name or the password is wrong")
    fresh = joe.ask("PUT", "/account/password", {"old": PASSWORD, "new": OTHER}).body["token"]
    assert [Person(joe.server, token=token).get("/account").status for token in (joe.token, named, fresh)] == [
        401, 401, 200]
    assert try_to_log_in(joe.server, joe.name, PASSWORD).status == 401


def test_passwords_are_kept_as_argon2_and_tokens_as_digests(start: Start) -> None:
    server = start("--no-worker")
    joe = register(server, "joesmith")
    engine = sa.create_engine(f"sqlite:///{server.data / 'server.db'}")
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT password FROM accounts")).scalar_one()
        assert re.match(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", kept)
    server.close()
    assert joe.token.encode() not in (server.data / "server.db").read_bytes()


def test_tokens_that_only_read_and_limits_of_an_account(joe: Person) -> None:
    server = joe.server
    made = joe.post("/tokens", {"label": "nagios", "read": True, "days": 7}).body
    assert made["expires"] - made["made"] == 7 * 86400
    reader = Person(server, joe.name, made["token"])
    assert reader.get("/routers").body == {"routers": []}
    refused = reader.post("/routers", {"name": "zebra"})
    assert (refused.status, refused.body["error"]) == (403, "this token only reads; log in with an account that may")
    assert [joe.post("/routers", {"name": name}).status for name in ("zebra", "tiger", "okapi")] == [201] * 3
    assert joe.post("/routers", {"name": "panda"}).body["error"] == \
        "this account has 3 routers, and may have 3; delete one first"
    assert [joe.ask("PUT", f"/groups/{name}", {}).status for name in ("one", "two", "ONE")] == [200] * 3
    assert joe.ask("PUT", "/groups/three", {}).body["error"] == "this account has 2 groups; delete one first"
    assert [joe.post("/tokens", {"label": "more"}).status for _ in range(2)] == [201] * 2
    full = joe.post("/tokens", {"label": "more"})
    assert (full.status, full.body["error"]) == (
        409, "this account has 4 tokens already; end one first: paradrop tokens end ID")
    second = log_in(server, joe.name)
    assert joe.get("/account").status == 401
    assert second.ask("DELETE", f"/tokens/{made['id']}").status == 204
    assert second.ask("DELETE", f"/tokens/{made['id']}").status == 404
    assert reader.get("/routers").status == 401


def test_a_login_expires(joe: Person) -> None:
    with database(joe.server) as connection:
        connection.execute(sa.text("UPDATE tokens SET expires = expires - 86400 * 30 WHERE account = :name"),
                           {"name": joe.name})
    assert joe.get("/account").status == 401


def test_who_guesses_is_locked_out_by_name_and_by_address(joe: Person) -> None:
    server, ann = joe.server, register(joe.server, joe.name.replace("joe", "ann"))

    def guess(name: str, guesser: Person, password: str = OTHER) -> Answered:
        return guesser.post("/login", {"name": name, "password": password})

    assert [guess(joe.name, Person(server)).status for _ in range(5)] == [401] * 5
    stranger = Person(server)
    locked = guess(joe.name.upper(), stranger, PASSWORD)
    assert (locked.status, 1 <= int(locked.headers["Retry-After"]) <= 300) == (429, True)
    assert re.fullmatch(r"too many attempts; try again in \d+ seconds", locked.body["error"])
    assert guess(ann.name, stranger, PASSWORD).status == 200
    guesser = Person(server)
    assert [guess(f"{joe.name}{number}", guesser).status for number in range(6)] == [401] * 5 + [429]
    assert guess(ann.name, guesser, PASSWORD).status == 429
    assert guess(ann.name, Person(server), PASSWORD).status == 200
    with database(server) as connection:
        connection.execute(sa.text("UPDATE failures SET last = last - 300"))
    assert [guess(joe.name, stranger, PASSWORD).status, guess(ann.name, guesser, PASSWORD).status] == [200, 200]


def test_many_guesses_at_once_are_no_more_than_one_after_the_other(joe: Person) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: try_to_log_in(joe.server, joe.name, OTHER).status, range(12)))
    assert sorted(statuses) == [401] * 5 + [429] * 7


def test_more_logins_than_can_be_hashed_are_sent_away() -> None:
    async def at_once(many: int) -> list[bool | BaseException]:
        passwords = Passwords()
        return await asyncio.gather(*(passwords.are_same("", OTHER) for _ in range(many)), return_exceptions=True)

    found = asyncio.run(at_once(AT_ONCE + WAITING + 3))
    sent_away = [one for one in found if isinstance(one, Refused)]
    assert [(one.status, one.headers) for one in sent_away] == [(503, {"Retry-After": "5"})] * 3
    assert found.count(False) == AT_ONCE + WAITING


def test_the_audit_log_is_kept_for_as_long_as_is_set(joe: Person) -> None:
    with database(joe.server) as connection:
        connection.execute(sa.text("UPDATE audit SET time = time - 86400 * 401 WHERE account = :name"),
                           {"name": joe.name})
    joe.post("/routers", {"name": "zebra"})
    assert [entry["action"] for entry in joe.get("/audit").body["entries"]] == ["router.make"]


def test_time_does_not_tell_which_names_there_are(joe: Person) -> None:
    def seconds(name: str) -> float:
        begun = time.perf_counter()
        assert try_to_log_in(joe.server, name, OTHER).body["error"] == "the name or the password is wrong"
        return time.perf_counter() - begun

    pairs = [(seconds(joe.name), seconds(f"no{joe.name}")) for _ in range(4)]
    ratio = statistics.median(known / unknown for known, unknown in pairs)
    assert 0.3 < ratio < 3  # without a hash it would be ten times as fast


def test_a_code_of_an_administrator_sets_a_password_once(either: Server, joe: Person) -> None:
    boss = administrator(either)
    replaced, code = (boss.post(f"/accounts/{joe.name}/reset").body["code"] for _ in range(2))
    for wrong in (replaced, "", code.upper() + "0"):
        refused = Person(either).post("/reset", {"name": joe.name, "code": wrong, "password": OTHER})
        assert (refused.status, refused.body["error"]) == (
            403, "this code is not good for this name, or not any more; ask an administrator for one")
    spend = {"name": joe.name, "code": code, "password": OTHER}
    assert Person(either).post("/reset", spend).body == {"name": joe.name}
    assert joe.get("/account").status == 401
    assert log_in(either, joe.name, OTHER).get("/account").status == 200
    assert Person(either).post("/reset", spend).status == 403
    assert boss.post("/accounts/nobody00/reset").status == 404


def test_roles_and_locks_count_at_once(either: Server, joe: Person) -> None:
    boss = administrator(either)
    assert joe.get("/accounts").body["error"].startswith("the role user may not do that (accounts.read)")
    assert boss.ask("PUT", f"/accounts/{joe.name}", {"role": "admin"}).body["role"] == "admin"
    assert joe.name in {account["name"] for account in joe.get("/accounts").body["accounts"]}
    assert boss.ask("PUT", f"/accounts/{joe.name}", {"role": "user", "locked": True}).body["locked"] is True
    assert joe.get("/account").status == 401
    locked = try_to_log_in(either, joe.name, PASSWORD)
    assert (locked.status, locked.body["error"]) == (403, "this account is locked; ask an administrator")
    assert boss.ask("PUT", f"/accounts/{joe.name}", {"locked": False}).status == 200
    assert log_in(either, joe.name).get("/audit").body["entries"][1]["text"] == "unlocked"


def test_an_account_is_deleted_with_all_that_it_made(either: Server, joe: Person) -> None:
    boss = administrator(either)
    joe.post("/routers", {"name": "aardvark"})
    assert joe.ask("PUT", "/groups/field", {}).status == 200
    number = begin(joe, put_file(either, "8.0"))
    refused = boss.ask("DELETE", f"/accounts/{joe.name}")
    assert (refused.status, refused.body["error"]) == (
        409, f"the account {joe.name} has 1 router; delete them first, or lock the account")
    assert boss.ask("DELETE", f"/routers/pd.{joe.name}.aardvark").status == 204
    assert joe.ask("DELETE", f"/accounts/{joe.name}").status == 403
    assert boss.ask("DELETE", f"/accounts/{joe.name.upper()}").status == 204
    assert [boss.get("/accounts").body, boss.get("/groups").body, boss.get(f"/rollouts/{number}").status] == [
        {"accounts": [one for one in boss.get("/accounts").body["accounts"] if one["name"] != joe.name]},
        {"groups": [one for one in boss.get("/groups").body["groups"] if one["account"] != joe.name]}, 404]
    assert joe.get("/account").status == 401
    assert try_to_log_in(either, joe.name, PASSWORD).status == 401
    assert boss.ask("DELETE", f"/accounts/{joe.name}").status == 404
    # who has the name now sees nothing of what was done under it before
    again = register(either, joe.name)
    assert [entry["action"] for entry in again.get("/audit").body["entries"]] == ["token.make", "account.add"]
    all_of_it = [entry["action"] for entry in boss.get("/audit").body["entries"] if entry["account"] == joe.name]
    assert all_of_it[2:7] == ["account.delete", "router.delete", "rollout.make", "group.make", "router.make"]


def test_whatever_is_made_while_an_account_is_deleted_is_whole_or_not_there(either: Server) -> None:
    boss = administrator(either)
    for number in range(4):
        joe = register(either, f"leaver{number}{boss.name}")
        with ThreadPoolExecutor(8) as pool:
            made = [pool.submit(joe.post, "/routers", {"name": f"router{n}"}) for n in range(2)]
            made += [pool.submit(joe.ask, "PUT", f"/groups/group{n}", {}) for n in range(2)]
            made += [pool.submit(joe.post, "/tokens", {"label": "more"})]
            gone = boss.ask("DELETE", f"/accounts/{joe.name}")
            statuses = {one.result().status for one in made}
        assert statuses <= {200, 201, 401, 403, 409}
        routers = [one for one in boss.get("/routers").body["routers"] if one["account"] == joe.name]
        assert gone.status == (409 if routers else 204), gone.data


def test_registration_by_invitation_and_none_at_all(start: Start) -> None:
    server = start("--no-worker", **SMALL, registration="invited")
    boss = administrator(server)
    newcomer = {"name": "joesmith", "password": PASSWORD}
    assert server.post(f"{HERE}/accounts", newcomer).body["error"] == \
        "this server makes accounts only for those whom an administrator invited; ask for an invitation"
    code = boss.post("/accounts/joesmith/invite").body["code"]
    assert boss.get("/accounts").body["accounts"][1]["invited"] is True
    assert [try_to_log_in(server, "joesmith", password).status for password in (PASSWORD, "")] == [401, 401]
    assert server.post(f"{HERE}/accounts", {**newcomer, "invitation": code}).status == 201
    assert log_in(server, "joesmith").get("/account").status == 200
    server.close()
    closed = start("--no-worker", registration="closed")
    assert closed.post(f"{HERE}/accounts", {**newcomer, "name": "anndoe99"}).body["error"] == \
        "this server makes no accounts for who asks; ask its administrator"


def test_accounts_on_the_servers_command_line(tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        return pdimage(tmp_path / "data", *words, code=code)

    assert run("add", "administrator", "--role", "admin") == "administrator: admin\n"
    assert run("add", "Administrator", code=1) == \
        "pdimage accounts add: cannot do that: the name Administrator is taken; choose another one\n"
    assert "the name must have 8 to 32" in run("add", "joe", code=1)
    assert run("role", "ADMINISTRATOR", "user", code=1) == \
        "pdimage accounts role: cannot do that: administrator is the last administrator; make another one first\n"
    assert "is the last administrator" in run("lock", "administrator", code=1)
    assert run("add", "joesmith") == "joesmith: user\n"
    assert run("role", "joesmith", "admin") == "joesmith: admin\n"
    assert run("lock", "administrator") == "administrator: admin, locked\n"
    assert run("delete", "joesmith", code=1) == \
        "pdimage accounts delete: cannot do that: joesmith is the last administrator; make another one first\n"
    assert run("unlock", "administrator") == "administrator: admin\n"
    assert re.fullmatch(r"([0-9a-f]{4}-){4}[0-9a-f]{4}  \(until 20[-0-9 :]+Z\)\n", run("reset", "joesmith"))
    assert re.match(r"([0-9a-f]{4}-){4}[0-9a-f]{4}  ", run("invite", "anndoe99"))
    assert run("add", "leaver00") == "leaver00: user\n"
    assert run("delete", "LEAVER00") == "LEAVER00 is deleted\n"
    rows = [line.split() for line in run("list").splitlines()]
    assert [(row[0], row[1], row[4:]) for row in rows] == [
        ("administrator", "admin", []), ("anndoe99", "user", ["invited"]), ("joesmith", "admin", [])]


def test_a_password_is_asked_for_without_an_echo(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("PARADROP_PASSWORD", None)
        os.execv(sys.executable, [sys.executable, "-m", "pdimage", "accounts", "add", "joesmith", "-d", str(tmp_path)])
    shown = b""
    for prompt in (b"Password: ", b"confirmation: "):
        while not shown.endswith(prompt):
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{PASSWORD}\n".encode())
    with contextlib.suppress(OSError):  # how the end of a terminal shows
        while more := os.read(terminal, 1000):
            shown += more
    assert os.waitpid(pid, 0)[1] == 0
    assert shown.endswith(b"joesmith: user\r\n")
    assert PASSWORD.encode() not in shown
