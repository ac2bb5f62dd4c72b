"""What must not work: foreign pages, stolen forms and cookies, wrong hosts, guessed passwords, roles too low."""

import time
from collections.abc import Iterator

import pytest
from browser import PASSWORD, Client
from process import Daemon

from paradrop.backend.pages.site import PAGES

pytestmark = pytest.mark.docker
SAFE = {"name": "toaster", "action": "check", "id": "nothing"}


def everything(client: Client) -> Iterator[tuple[str, str, str | None]]:
    """Yield method, address and role of each page that is not a way in."""
    for page in PAGES:
        yield page.method, page.path.format(**SAFE), page.role


def test_who_has_not_logged_in_is_led_to_the_login_and_nothing_happens(owned: Daemon) -> None:
    stranger = Client(owned)
    for method, path, role in everything(stranger):
        if role is not None:
            answer = stranger.ask(method, path, {} if method == "POST" else None)
            assert (answer.status, answer.headers["Location"]) == (303, "/login"), path
    for path in ("/static/style.css", "/static/page.js", "/static/icon.svg"):
        assert stranger.ask("GET", path).status == 200
    for path in ("/static/..%2fsite.py", "/static/none.css", "/static/%2e%2e"):
        assert stranger.ask("GET", path).status == 404
    for cookie in ("", "nonsense", "12345678.guess", "a" * 5000):
        stranger.cookies["paradrop"] = cookie
        assert stranger.ask("GET", "/").headers["Location"] == "/login"


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_each_role_sees_and_does_what_the_api_lets_it(owned: Daemon, role: str) -> None:
    client = Client(owned)
    client.log_in(role)
    may = ("viewer", "operator", "admin")[:("viewer", "operator", "admin").index(role) + 1]
    for method, path, needed in everything(client):
        if method == "GET" and needed is not None:
            assert (client.ask("GET", path).status == 403) == (needed not in may), path
        elif needed is not None and needed not in may:
            assert client.send(path).status == 403, path
    buttons = client.ask("GET", "/firmware").data.decode()
    assert ("Upgrade now" in buttons, "Factory reset" in client.ask("GET", "/router").data.decode()) == \
        ((role == "admin"),) * 2


def test_a_form_counts_only_from_the_session_s_own_page(owned: Daemon, client: Client) -> None:
    thief = Client(owned)
    thief.log_in("viewer")
    for key in ("", "0" * 32, thief.key(), "ü"):
        answer = client.send("/router/reboot", key=key)
        assert answer.status == 403
        assert "not of your session" in answer.data.decode()
    assert not (owned.home / "reboots").exists()


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:9000"}, {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_a_foreign_page_changes_nothing(owned: Daemon, client: Client, headers: dict[str, str]) -> None:
    key = client.key()
    assert client.ask("POST", "/router/reboot", {"key": key}, headers).status == 403
    assert Client(owned).ask("POST", "/login", {"name": "admin", "password": PASSWORD}, headers).status == 403
    assert not (owned.home / "reboots").exists()


def test_a_name_that_was_made_to_lead_here_is_refused(client: Client) -> None:
    for host in ("evil.example", "evil.example:9999", "127.0.0.1.evil.example", "[::1"):
        answer = client.ask("GET", "/", headers={"Host": host})
        assert answer.status in (400, 421), host
        assert "firmware" not in answer.data.decode().lower()
    for host in ("127.0.0.1", "localhost:80", "[::1]:9999", "192.168.1.1"):
        assert client.ask("GET", "/", headers={"Host": host}).status == 200


def test_a_cookie_that_another_one_got_is_worth_nothing(owned: Daemon, client: Client) -> None:
    thief = Client(owned, "127.0.0.7", dict(client.cookies))
    assert thief.ask("GET", "/").headers["Location"] == "/login"
    bearer = {"Authorization": f"Bearer {client.cookies['paradrop']}"}
    assert thief.ask("GET", "/api/v1/status", headers=bearer).status == 401, "nor is it a token of the API"
    token = (owned.home / "run/api/token").read_text().strip()
    thief.cookies["paradrop"] = token
    assert thief.ask("GET", "/").headers["Location"] == "/login", "nor the other way round"


def test_sessions_end(owned: Daemon, client: Client) -> None:
    cookie = client.ask("POST", "/login", {"name": "admin", "password": PASSWORD}).headers["Set-Cookie"]
    assert {part.strip().split("=")[0].lower() for part in cookie.split(";")} == \
        {"paradrop", "httponly", "max-age", "path", "samesite"}
    assert "SameSite=strict" in cookie
    known = dict(client.cookies)
    assert client.send("/logout").status == 303
    client.cookies = known
    assert client.ask("GET", "/").headers["Location"] == "/login"
    first = Client(owned)
    first.log_in("viewer")
    for _ in range(5):
        Client(owned).log_in("viewer")
    assert first.ask("GET", "/").headers["Location"] == "/login", "the oldest session gave way"


def test_another_password_ends_all_other_sessions(owned: Daemon) -> None:
    here, there = Client(owned), Client(owned)
    here.log_in("viewer")
    there.log_in("viewer")
    wrong = here.send("/router/password", old="wrong horse", new="battery staple", again="battery staple")
    assert (wrong.status, "not your password now" in wrong.data.decode()) == (401, True)
    assert here.send("/router/password", old=PASSWORD, new="battery staple", again="battery").status == 422
    assert here.send("/router/password", old=PASSWORD, new="short", again="short").status == 422
    assert here.send("/router/password", old=PASSWORD, new="battery staple", again="battery staple").status == 303
    assert here.ask("GET", "/").status == 200
    assert there.ask("GET", "/").headers["Location"] == "/login"
    assert here.send("/router/password", old="battery staple", new=PASSWORD, again=PASSWORD).status == 303


def test_guessing_locks_the_guesser_out_and_nobody_else(owned: Daemon, client: Client) -> None:
    guesser = Client(owned, "127.0.0.9")
    answers = [guesser.log_in("admin", f"guess {number}").status for number in range(11)]
    assert answers == [401] * 10 + [429]
    late = guesser.log_in()
    assert (late.status, "Wait five minutes" in late.data.decode()) == (429, True)
    assert client.ask("GET", "/").status == 200
    assert Client(owned).log_in().status == 303


def test_what_cannot_be_read_is_told_and_big_forms_are_not_taken(client: Client) -> None:
    media = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.ask("GET", "/?part=%ff").status == 400
    assert client.ask("POST", "/router/reboot", body=b"\xff", headers=media).status == 400
    assert client.ask("POST", "/router/reboot", body=b"a=1&" * 60, headers=media).status == 400
    assert client.ask("POST", "/router/reboot", body=b"a" * 70000, headers=media).status == 413
    for method in ("PUT", "DELETE"):
        assert client.ask(method, "/").status == 405
    assert client.ask("POST", "/network", {}).status == 405
    assert client.ask("GET", "/logout").status == 405
    for path in ("/firmware/toast", "/chutes/toaster", "/chutes/toaster/toast", "/changes/1", "/etc/passwd"):
        assert client.ask("GET", path).status == 404
        assert "traceback" not in client.ask("GET", path).data.decode().lower()
    assert client.send("/firmware/toast").status == 404
    assert client.ask("GET", "/api/v1/toaster").headers["Content-Type"] == "application/problem+json"


def test_nobody_keeps_a_copy_or_frames_a_page(client: Client) -> None:
    headers = client.ask("GET", "/").headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["script-src"]) == ("'none'", "'none'", "'self'")
    assert "Access-Control-Allow-Origin" not in headers
    page = client.ask("GET", "/firmware").data.decode()
    assert not [mark for mark in ("style=", "<style", "onclick", "<script>", "http://", "https://") if mark in page]


def test_a_second_command_waits_for_the_first(owned: Daemon, client: Client) -> None:
    lock = owned.home / "bin/fussy"
    lock.write_text("#!/bin/sh\nsleep 1\necho done\n")
    lock.chmod(0o755)
    try:
        assert client.send("/firmware/check").status == 303
        late = client.send("/firmware/upgrade")
        assert (late.status, "is not done yet" in late.data.decode()) == (409, True)
        end = time.monotonic() + 20
        while "fussy update is done." not in client.ask("GET", "/firmware").data.decode():
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        lock.unlink()
