"""Who may do what: one table. Every cell of it is asked for through the API by a test.

A role reaches with an action nothing, what is its own account's, or everybody's.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Role = Literal["user", "viewer", "operator", "admin"]
Reach = Literal["none", "own", "all"]
Action = Literal["account.read", "account.change", "router.read", "router.make", "router.provision", "router.lead",
                 "router.delete", "group.read", "group.change", "rollout.read", "rollout.lead", "rollout.approve",
                 "accounts.read", "accounts.change", "accounts.delete", "audit.read"]
ROLES: tuple[Role, ...] = get_args(Role)


class Allowed(NamedTuple):
    """A row: how far each role reaches, and whether a token that only reads may do it."""

    reads: bool
    user: Reach
    viewer: Reach
    operator: Reach
    admin: Reach


ACTIONS: Mapping[Action, Allowed] = {
    #                           reads  user    viewer  operator admin
    "account.read":     Allowed(True, "own", "own", "own", "own"),
    "account.change":   Allowed(False, "own", "own", "own", "own"),  # password, tokens
    "router.read":      Allowed(True, "own", "all", "all", "all"),  # list, facts, logs, what it answers to GET
    "router.make":      Allowed(False, "own", "none", "own", "own"),
    "router.provision": Allowed(False, "own", "none", "all", "all"),
    "router.lead":      Allowed(False, "own", "none", "all", "all"),  # all else that is sent to it, its incident
    "router.delete":    Allowed(False, "own", "none", "all", "all"),
    "group.read":       Allowed(True, "own", "all", "all", "all"),
    "group.change":     Allowed(False, "own", "none", "all", "all"),
    "rollout.read":     Allowed(True, "own", "all", "all", "all"),
    "rollout.lead":     Allowed(False, "own", "none", "all", "all"),  # start, pause, resume, cancel
    "rollout.approve":  Allowed(False, "own", "none", "none", "all"),
    "accounts.read":    Allowed(True, "none", "none", "none", "all"),
    "accounts.change":  Allowed(False, "none", "none", "none", "all"),
    "accounts.delete":  Allowed(False, "none", "none", "none", "all"),
    "audit.read":       Allowed(True, "own", "all", "all", "all"),
}


def reach(role: Role, action: Action, *, only_reads: bool = False) -> Reach:
    """Return how far a role reaches with an action, ONLY_READS with a token that only reads.

    >>> reach("viewer", "router.read"), reach("user", "router.lead"), reach("admin", "router.lead", only_reads=True)
    ('all', 'own', 'none')
    """
    allowed = ACTIONS[action]
    if only_reads and not allowed.reads:
        return "none"
    found: Reach = getattr(allowed, role)
    return found
