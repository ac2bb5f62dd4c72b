"""What the router answers, as text for people."""

import json
from collections.abc import Mapping
from typing import Any

from fussy.moments import utc
from paradrop.lib.utils import ucitext


def as_json(value: Any) -> str:
    """Return a value as JSON for programs."""
    return json.dumps(value, indent=1)


def table(rows: list[dict[str, Any]], *columns: str) -> str:
    """Return rows as columns of text under a line of titles; what is null is a dash.

    >>> print(table([{"name": "hello-world", "version": None}], "name", "version"))
    NAME         VERSION
    hello-world  -
    """
    texts = [[str(row[column] if row[column] is not None else "-") for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
                     for line in [[column.upper() for column in columns], *texts])


def chutes(found: list[dict[str, Any]]) -> str:
    """Return a router's chutes as a table, each with how its containers are.

    >>> one = {"service": "main", "state": "exited", "detail": "Exited (1) 3 minutes ago"}
    >>> print(chutes([{"name": "counter", "state": "running", "containers": [one], "version": "2", "warning": None}]))
    NAME     STATE    CONTAINER                 VERSION  WARNING
    counter  running  exited (1) 3 minutes ago  2        -
    """
    rows = [{**chute, "container": ", ".join(_container(one, len(chute["containers"])) for one in chute["containers"])
             or None} for chute in found]
    return table(rows, "name", "state", "container", "version", "warning")


def _container(one: Mapping[str, Any], count: int) -> str:
    words = one["detail"].lower() if one["state"] == "exited" else one["state"]
    return f"{one['service']} {words}" if count > 1 else words


def status(found: Mapping[str, Any]) -> str:
    """Return the status of a router."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found["chutes"].items())) or "none"
    return (f"version {found['version']}\nup for {found['uptime'] / 3600:.1f} h\nchutes: {counts}\n"
            f"changes under way: {found['changes']}")


def configuration(sections: list[dict[str, Any]]) -> str:
    """Return the sections of a configuration file as the file has them."""
    return ucitext.render(ucitext.Document([_section(section) for section in sections]))


def log_line(line: str) -> str:
    """Return a record of the daemon's log, which comes as JSON, as a line."""
    record = json.loads(line)
    return f"{utc(record['time'])} {record['level']} {record['module']}: {record['message']}"


def _section(section: Mapping[str, Any]) -> ucitext.Section:
    title = {"type": section["type"], "name": section["name"], "comment": section["owner"]}
    options = {**section["options"], **({"list": section["lists"]} if section["lists"] else {})}
    return {key: value for key, value in title.items() if value is not None}, options
