"""What the router's runtime must keep to, as JSON: ``python tests/bench/runtime.py`` (root)."""

import json
import sys
from dataclasses import asdict

import daemon
import pdconfd
from report import Check

import chutes


def checks() -> list[Check]:
    """Measure the runtime: installs, reloads, memory."""
    _, _, ratio = chutes.measure()
    _, reload, commands = pdconfd.measure()
    return [
        Check("install of chute 100 / of the first", ratio, "x", chutes.TARGET),
        Check("pdconfd: 200 sections, 1 changed", 1000 * reload, "ms", 1000 * pdconfd.TARGET),
        Check("pdconfd: commands of that reload", max(commands[1:]), "commands", pdconfd.COMMANDS),
        Check("router's daemon, idle", daemon.memory(), "MiB", daemon.TARGET),
        Check("router's daemon, linked to a server", daemon.linked_memory(), "MiB", daemon.TARGET),
    ]


if __name__ == "__main__":
    json.dump([asdict(check) for check in checks()], sys.stdout)
