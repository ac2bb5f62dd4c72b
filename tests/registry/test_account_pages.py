"""The pages about accounts in a real browser: one's own password and tokens, and what administrators do."""

from tests.registry.browsing import Window
from tests.registry.conftest import PASSWORD, Person, administrator, log_in, register, try_to_log_in
from tests.server.serverprocess import Server

OTHER = "battery staple"


def test_ones_own_tokens_and_password(server: Server, window: Window) -> None:
    ann = register(server, "ann")
    window.log_in("ann", PASSWORD)
    window.page.click("nav >> text=ann")
    assert window.page.inner_text("nav [aria-current]") == "ann"
    assert window.page.locator("tbody tr").count() == 2, "the command's login and this browser's"
    assert "Browser (this one)" in window.text()
    window.fill(label="nagios")
    window.page.select_option("#days", "30")
    window.page.check("[name=read]")
    window.press("Make it")
    window.look("account-token")
    reader = Person(server, "ann", window.page.inner_text(".good pre"))
    assert reader.get("/account").body == {"name": "ann", "role": "user", "read": True}
    made = ann.get("/tokens").body["tokens"][-1]
    assert (made["label"], made["expires"] - made["made"]) == ("nagios", 30 * 86400)
    window.page.click("button[aria-label^='End nagios']")
    assert "nagios" not in window.text()
    assert reader.get("/account").status == 401

    for old, password, again, mistake in (
            (OTHER, OTHER, OTHER, "The name or the password is wrong."),
            (PASSWORD, OTHER, PASSWORD, "The two passwords are not the same.")):
        window.fill(old=old, password=password, again=again)
        window.press("Change it")
        assert window.page.inner_text(".problem") == mistake
    window.look("account-mistake")
    window.fill(old=PASSWORD, password=OTHER, again=OTHER)
    window.press("Change it")
    assert window.page.inner_text(".good") == "The password is changed. All other logins and tokens have ended."
    window.look("account-changed")
    assert window.page.locator("tbody tr").count() == 1, "this browser alone is still logged in"
    assert ann.get("/account").status == 401
    assert [try_to_log_in(server, "ann", password).status for password in (PASSWORD, OTHER)] == [401, 200]
    window.page.click("button[aria-label^='End Browser']")
    assert window.page.url.endswith("/fleet/login"), "who ends the browser's own login is out"


def test_an_administrator_leads_accounts(server: Server, window: Window, plain: Window) -> None:
    boss, joe = administrator(server), register(server, "joe")
    window.log_in(boss.name, PASSWORD)
    window.page.click("nav >> text=Accounts")
    window.fill(name="j.o.e")
    window.press("Issue a code")
    assert "the name must have 3 to 32 letters and digits" in window.page.inner_text(".problem")
    window.go("/fleet/accounts")
    window.fill(name="newcomer")
    window.press("Issue a code")
    window.look("accounts")
    code = window.page.inner_text(".good pre")
    assert window.page.inner_text("tbody tr:has-text('newcomer')").split()[:3] == ["newcomer", "user", "invited"]
    plain.go("/fleet/register")
    plain.fill(name="newcomer", password=PASSWORD, again=PASSWORD, invitation=code)
    plain.press("Register")
    assert "newcomer" in plain.page.inner_text("nav")

    window.page.click("tbody >> text=joe")
    window.page.select_option("#role", "operator")
    window.press("Give it this role")
    assert joe.get("/account").body["role"] == "operator"
    window.press("Lock it")
    window.look("account-locked")
    assert try_to_log_in(server, "joe", PASSWORD).status == 403
    window.press("Unlock it")
    window.press("Issue a code for a new password")
    window.look("account-code")
    code = window.page.inner_text(".good pre")
    plain.press("Log out")
    plain.page.click("text=set a new one")
    for given, mistake in (("0000-0000", "This code is not good for this name, or not any more; ask an administrator "
                                         "for one."), (code, "")):
        plain.fill(name="joe", code=given, password=OTHER, again=OTHER)
        plain.press("Set it")
        assert not mistake or plain.page.inner_text(".problem") == mistake
    assert plain.page.url.endswith("/fleet")

    joe = log_in(server, "joe", OTHER)
    assert joe.post("/routers", {"name": "aardvark"}).status == 201
    window.press("Delete it")
    window.look("account-delete")
    window.press("Delete it")
    assert window.page.inner_text(".problem") == "the account joe has 1 router; delete them first, or lock the account"
    window.look("fleet-error")
    assert joe.ask("DELETE", "/routers/aardvark").status == 204
    window.go("/fleet/accounts/JOE")
    window.press("Delete it")
    window.press("Delete it")
    assert window.page.url.endswith("/fleet/accounts")
    assert "joe" not in window.page.locator("tbody a").all_inner_texts()
    window.go("/fleet/accounts/joe")
    assert "there is no account 'joe'" in window.text()


def test_accounts_are_for_administrators_alone(server: Server, plain: Window) -> None:
    register(server, "eve")
    plain.log_in("eve", PASSWORD)
    assert "Accounts" not in plain.page.inner_text("nav")
    for path in ("/fleet/accounts", "/fleet/accounts/eve"):
        plain.go(path)
        assert "the role user may not do that (accounts.read)" in plain.text()


def test_a_page_at_the_login_of_nobody(server: Server, window: Window) -> None:
    window.go("/fleet/account")
    assert window.page.url.endswith("/fleet/login")
    window.page.click("text=set a new one")
    window.look("fleet-reset")
