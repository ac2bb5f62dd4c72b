"""The first page: how the router is, in a few lines each."""

import shutil
import time
from pathlib import Path
from typing import Any

from starlette.responses import Response

from fussy.errors import FussyError
from fussy.uptime import now
from paradrop.backend.link import linkstate
from paradrop.backend.pages.showing import show
from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd import identity, opchutes
from paradrop.lib import firmware, settings


def show_overview(visit: Visit) -> Response:
    """Show how the router is."""
    return show(visit, "overview.html", part="part" in visit.query, chutes=opchutes.list_chutes(visit.call()),
                link=linkstate.read(), pdid=pdid(), machine=machine(visit), now=time.time(), **firmware_facts())


def firmware_facts() -> dict[str, Any]:
    """Return the state of the firmware for a page: ``status``, or the ``trouble`` that keeps us from knowing it."""
    try:
        return {"status": firmware.status(), "trouble": ""}
    except FussyError as error:
        return {"status": None, "trouble": str(error)}


def pdid() -> str:
    """Return the name that provisioning gave the router, "" before."""
    known = identity.IdentityFile().identity
    return known.pdid if known else ""


def machine(visit: Visit) -> dict[str, float]:
    """Return seconds since the router was switched on and since the runtime began, and bytes of memory and disk."""
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    kib = {name: int(memory[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    disk = shutil.disk_usage(settings.CONFIG_HOME_DIR)
    return {"uptime": now().up, "runtime": time.time() - visit.rest.started, "memory": kib["MemTotal"] * 1024,
            "memory_free": kib["MemAvailable"] * 1024, "disk": disk.total, "disk_free": disk.free}
