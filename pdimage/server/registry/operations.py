"""Every address of the registry, with what it takes and answers. Others of the same kind are added here."""

from pdimage.server import names
from pdimage.server.operations import FLAG, NUMBER, TEXT, Operation, Schema, fields, listed
from pdimage.server.registry.accountsapi import AccountsApi
from pdimage.server.registry.desk import Registry
from pdimage.server.registry.permissions import ROLES
from pdimage.server.registry.routersapi import MACHINE, RoutersApi

HERE = "/registry/v1"

TIME: Schema = {"type": "number"}
NAME: Schema = {"type": "string", "pattern": names.pattern("account")}
PASSWORD: Schema = {"type": "string", "minLength": 8, "maxLength": 200}
ROLE: Schema = {"enum": list(ROLES)}
NAMED = fields("name", name=TEXT)
FRESH = fields("token id expires name role", token=TEXT, id=TEXT, expires=TIME, name=TEXT, role=ROLE)
CODE = fields("code expires", code=TEXT, expires=TIME)
ACCOUNT = fields("name role locked invited made", name=TEXT, role=ROLE, locked=FLAG, invited=FLAG, made=TIME)
TOKEN = fields("id kind read label made expires", id=TEXT, kind={"enum": ["login", "page", "made"]}, read=FLAG,
               label=TEXT, made=TIME, expires=TIME)
ENTRY = fields("number time who address action account subject text", number=NUMBER, time=TIME, who=TEXT, address=TEXT,
               action=TEXT, account=TEXT, subject=TEXT, text=TEXT)
ROUTER_NAME: Schema = {"type": "string", "pattern": names.pattern("router")}
ROUTER = fields("pdid account name group made provisioned awake seen address version incident outcome",
                pdid=TEXT, account=TEXT, name=TEXT, group=TEXT, made=TIME, provisioned={"type": ["number", "null"]},
                awake=FLAG, seen={"type": ["number", "null"]}, address=TEXT, version=TEXT, incident=TEXT, outcome={})
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
PROVISIONED = fields(
    "pdid certificate authority server keyring signers channel hawkbit", pdid=TEXT, certificate=TEXT, authority=TEXT,
    server=TEXT, keyring=listed(TEXT), signers=listed(TEXT), channel={"type": ["object", "null"]},
    hawkbit=fields("url tenant name token", url=TEXT, tenant=TEXT, name=TEXT, token=TEXT))

# What may go wrong wherever a body is sent, and wherever a token is wanted.
SENT = (400, 408, 413, 503)
ASKED = (401, 403, 503)


def operations(registry: Registry) -> list[Operation]:
    """Return the operations of the registry."""
    return [*_open(AccountsApi(registry)), *_own(AccountsApi(registry)), *_administrators(AccountsApi(registry)),
            *_routers(RoutersApi(registry))]


def _open(api: AccountsApi) -> list[Operation]:
    """For who has no token."""
    newcomer = fields("name password", name=NAME, password=PASSWORD, invitation=TEXT)
    reset = fields("name code password", name=NAME, code=TEXT, password=PASSWORD)
    return [
        Operation("POST", f"{HERE}/accounts", api.register, {201: NAMED}, (*SENT, 403, 409, 429), newcomer),
        Operation("POST", f"{HERE}/login", api.login, {200: FRESH}, (*SENT, 401, 403, 429),
                  fields("name password", name=NAME, password=PASSWORD)),
        Operation("POST", f"{HERE}/reset", api.reset, {200: NAMED}, (*SENT, 403, 429), reset),
    ]


def _own(api: AccountsApi) -> list[Operation]:
    """For everybody's own account."""
    wanted = fields("label", label={"type": "string", "minLength": 1, "maxLength": 64}, read=FLAG,
                    days={"type": "integer", "minimum": 1, "maximum": 3650})
    made = fields("token id expires", **{"token": TEXT, **TOKEN["properties"]})
    return [
        Operation("POST", f"{HERE}/logout", api.logout, {204: None}, ASKED, secured=True),
        Operation("GET", f"{HERE}/account", api.account,
                  {200: fields("name role read", name=TEXT, role=ROLE, read=FLAG)}, ASKED, secured=True),
        Operation("PUT", f"{HERE}/account/password", api.change_password, {200: FRESH}, (*SENT, 401, 403, 429),
                  fields("old new", old=PASSWORD, new=PASSWORD), secured=True),
        Operation("GET", f"{HERE}/tokens", api.tokens, {200: fields("tokens", tokens=listed(TOKEN))}, ASKED,
                  secured=True),
        Operation("POST", f"{HERE}/tokens", api.make_token, {201: made}, (*SENT, 401, 403, 409), wanted, secured=True),
        Operation("DELETE", f"{HERE}/tokens/{{token}}", api.end_token, {204: None}, (*ASKED, 404), secured=True),
        Operation("GET", f"{HERE}/audit", api.audit, {200: fields("entries", entries=listed(ENTRY))}, (*ASKED, 400),
                  query=["before", "limit"], secured=True),
    ]


def _administrators(api: AccountsApi) -> list[Operation]:
    one = f"{HERE}/accounts/{{name}}"
    return [
        Operation("GET", f"{HERE}/accounts", api.accounts_list, {200: fields("accounts", accounts=listed(ACCOUNT))},
                  ASKED, secured=True),
        Operation("PUT", one, api.change_account, {200: ACCOUNT}, (*SENT, 401, 403, 404, 409),
                  fields(role=ROLE, locked=FLAG), secured=True),
        Operation("DELETE", one, api.delete_account, {204: None}, (*ASKED, 404, 409), secured=True),
        Operation("POST", f"{one}/reset", api.reset_account, {200: CODE}, (*ASKED, 404), secured=True),
        Operation("POST", f"{one}/invite", api.invite, {201: CODE}, (*ASKED, 400, 409), secured=True),
    ]


def _routers(api: RoutersApi) -> list[Operation]:
    one = f"{HERE}/routers/{{name}}"
    return [
        Operation("GET", f"{HERE}/routers", api.routers_list, {200: fields("routers", routers=listed(ROUTER))}, ASKED,
                  secured=True),
        Operation("POST", f"{HERE}/routers", api.make_router, {201: ROUTER}, (*SENT, 401, 403, 409),
                  fields("name", name=ROUTER_NAME), secured=True),
        Operation("GET", one, api.show_router,
                  {200: fields("pdid", **{**ROUTER["properties"], "facts": {}})}, (*ASKED, 404), secured=True),
        Operation("DELETE", one, api.delete_router, {204: None}, (*ASKED, 404), secured=True),
        Operation("DELETE", f"{one}/incident", api.clear_incident, {204: None}, (*ASKED, 404), secured=True),
        Operation("POST", f"{one}/provision", api.issue_secret, {200: fields(
            "pdid secret expires server server_certificate", pdid=TEXT, secret=TEXT, expires=TIME, server=TEXT,
            server_certificate=TEXT_OR_NULL)}, (*ASKED, 404), secured=True),
        Operation("POST", f"{HERE}/provision", api.provision, {200: PROVISIONED}, (*SENT, 403, 409), fields(
            "secret csr machine clock", secret=TEXT, csr=TEXT, machine={"type": "string", "pattern": MACHINE},
            clock=TIME, again=FLAG)),
    ]
