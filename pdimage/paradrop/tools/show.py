"""What the router answers, as text for people."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any


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


def status(found: Mapping[str, Any]) -> str:
    """Return the status of a router."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found["chutes"].items())) or "none"
    return (f"version {found['version']}\nup for {found['uptime'] / 3600:.1f} h\nchutes: {counts}\n"
            f"changes under way: {found['changes']}")


def configuration(files: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """Return the sections of configuration files, as these files have them."""
    return "\n".join(line for name, sections in files.items()
                     for line in [f"# {name}", *(_section(section) for section in sections)])


def log_line(line: str) -> str:
    """Return a record of the daemon's log, which comes as JSON, as a line."""
    record = json.loads(line)
    when = datetime.fromtimestamp(record["time"]).strftime("%Y-%m-%d %H:%M:%S")
    return f"{when} {record['level']} {record['module']}: {record['message']}"


def _section(section: Mapping[str, Any]) -> str:
    title = " ".join(filter(None, ["config", section["type"], section["name"]]))
    lines = [f"{title} #{section['owner']}" if section["owner"] else title]
    lines += [f"\toption {key} '{value}'" for key, value in section["options"].items()]
    lines += [f"\tlist {key} '{value}'" for key, values in section["lists"].items() for value in values]
    return "\n".join(lines)
