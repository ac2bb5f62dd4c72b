"""Accounts: register, log in and out, tokens, lockout, reset; with both kinds of database."""

from tests.registry.conftest import HERE, PASSWORD, Person, log_in, register
from tests.server.serverprocess import Server


def test_register_log_in_and_out(either: Server) -> None:
    server, joe = either, register(either, "JoeSmith")
    assert joe.get("/account").body == {"name": "JoeSmith", "role": "user", "read": False}
    again = log_in(server, "joesmith")
    assert [token["kind"] for token in joe.get("/tokens").body["tokens"]] == ["login", "login"]
    assert joe.post("/logout").status == 204
    assert joe.get("/account").status == 401
    assert again.get("/account").status == 200
    assert Person(server).post("/accounts", {"name": "joeSMITH", "password": PASSWORD}).body["error"] \
        == "the name joeSMITH is taken; choose another one"
    made = again.post("/routers", {"name": "aardvark"})
    assert (made.status, made.body["pdid"]) == (201, "pd.JoeSmith.aardvark")
    assert again.get("/routers/AARDVARK").body["pdid"] == "pd.JoeSmith.aardvark"
    assert [entry["action"] for entry in again.get("/audit").body["entries"]] == [
        "router.make", "token.end", "token.make", "token.make", "account.add"]
    assert server.post(f"{HERE}/login", {"name": "JoeSmith", "password": "wrong horse"}).status == 401
