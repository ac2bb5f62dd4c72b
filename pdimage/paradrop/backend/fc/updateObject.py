"""What is asked of the router, from the request to its result.

::

    parse(request) -> UpdateObject --execute()--> plans generated, ordered, run --> complete(success=True, …)
                                                          └─ one fails: aborted --> complete(success=False, …)
"""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from paradrop.backend.exc import executionplan, files, hostconfig, name, resource, runtime, state, struct, traffic
from paradrop.backend.exc.plangraph import PlanMap
from paradrop.backend.fc import journal
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils.dockerspec import data_dir, system_dir
from paradrop.lib.utils.ucitext import Section

log = logging.getLogger(__name__)

# Which state a chute is in after an update of each type; None: it is gone.
TARGET_STATES: dict[str, str | None] = {
    "create": "running", "update": "running", "rollback": "running", "start": "running", "restart": "running",
    "stop": "stopped", "delete": None,
}

class UpdateObject:
    """An update of the router. These are all that a request can set:

    ``updateClass`` (CHUTE, ROUTER), ``updateType`` (see TARGET_STATES), ``name``, ``tok`` (Unix seconds), ``pkg`` (the
    request's package; build output goes to ``pkg.request.write``), ``func`` (called with the update when it is
    complete), ``user``, ``workdir`` (a directory with the project, for a build), ``boot`` (it is part of a start
    of the router, so what runs well is left alone), ``release`` (the firmware brings it, so any version will do). The
    other keys are the chute's descriptor.

    The modules that work on it use ``old`` and ``new`` (chutes; ``old`` is None for a new one), ``plans``,
    ``responses`` (what may help to understand a failure), ``failure`` (what the user is told), ``result`` (what
    complete was given, None until then), ``inconsistent`` (something is left to be set right at the next start) and
    ``directories`` (fetched projects by service).
    """

    updateModuleList: ClassVar[list[ModuleType]] = []

    def __init__(self, obj: Mapping[str, Any]) -> None:
        self.updateClass: str = obj["updateClass"]
        self.updateType: str = str(obj.get("updateType"))
        self.name: str = str(obj.get("name"))
        self.tok: Any = obj.get("tok") or int(time.time())
        self.pkg: Any = obj.get("pkg")
        self.func: Callable[[Any], object] | None = obj.get("func")
        self.user: str | None = obj.get("user")
        self.workdir: str | None = obj.get("workdir")
        self.boot: bool = bool(obj.get("boot"))
        self.directories: dict[str, Path] = {}
        self.responses: list[Any] = []
        self.failure: str | None = None
        self.result: dict[str, Any] | None = None
        self.inconsistent = False
        self.plans = PlanMap(self.name)
        self.chuteStor = ChuteStorage()
        self.old: Chute | None = copy.deepcopy(self.chuteStor.getChute(self.name))
        self.new = self._new_chute(obj)
        self.createdTime = time.time()
        self.startTime: float | None = None
        self.endTime: float | None = None

    def __repr__(self) -> str:
        return f"<Update({self.updateClass}) :: {self.name} - {self.updateType} @ {self.tok}>"

    def __str__(self) -> str:
        return f"<Update({self.updateClass}) :: {self.name}>"

    def _new_chute(self, obj: Mapping[str, Any]) -> Chute:
        chute = Chute(obj, strip=["state", "warning"])
        chute.name = self.name
        return chute

    def progress(self, text: str) -> None:
        """Show a piece of text to the one who asked. If nobody listens any more, the update goes on without."""
        if self.pkg is None:
            return
        try:
            self.pkg.request.write(text)
        except Exception as error:
            log.info("%s: nobody reads the progress any more: %s", self, error)
            self.pkg = None

    def saveState(self) -> None:
        """Make the update's outcome last. Subtypes say how."""

    def execute(self) -> None:
        """Generate, order and run the plans; abort them if one fails. In any case the update is complete afterwards."""
        self.startTime = time.time()
        try:
            if executionplan.generatePlans(self):
                self.complete(success=False, message=self.failure or "The update was refused.")
                return
            executionplan.aggregatePlans(self)
            if executionplan.executePlans(self):
                message = self.failure or "The update failed."
                if executionplan.abortPlans(self):
                    self.inconsistent = True
                    message += " Not everything could be taken back; see the router's log."
                self.complete(success=False, message=message)
                return
        except ParadropError as error:
            self.complete(success=False, message=error.message)
            return
        self.complete(success=True, message=f"Chute {self.name} {self.updateType} success")

    def complete(self, **kwargs: Any) -> None:
        """Keep the result (``success``, ``message``) and tell the one who asked, once."""
        if self.result is not None:
            log.error("%s: complete a second time, with %s", self, kwargs)
            return
        self.endTime = time.time()
        self.result = kwargs
        if settings.DEBUG_MODE:
            self.result["responses"] = self.responses
        log.info("%s: %s", self, kwargs.get("message"), extra={"kind": "usage"})
        if self.func is not None:
            self.func(self)


class UpdateChute(UpdateObject):
    """An update of one chute: create, update, rollback, start, restart, stop or delete.

    ``new`` is the chute as it shall be. For stop and delete it has no descriptor, so that nothing of the router is kept
    for it. A start or restart may bring new ``environment``; the rest is the old chute's.
    """

    updateModuleList: ClassVar[list[ModuleType]] = [name, state, struct, resource, traffic, runtime, files]

    def _new_chute(self, obj: Mapping[str, Any]) -> Chute:
        chute = super()._new_chute(obj)
        old = self.old
        previous = old.getCache("previous") if old else None
        if self.updateType == "rollback" and previous:
            chute = Chute({**previous, "name": self.name})
        elif self.updateType in ("start", "restart") and old:
            chute.inherit(old)
        elif self.updateType in ("stop", "delete"):
            chute = Chute({"name": self.name})
        chute.state = TARGET_STATES.get(self.updateType) or "stopped"
        if obj.get("release"):
            chute.setCache("fromRelease", True)
        if old:
            chute.warning = obj.get("warning") if self.boot else None
            for key, value in self._carried_over(old).items():
                chute.setCache(key, copy.deepcopy(value))
        return chute

    def _carried_over(self, old: Chute) -> dict[str, Any]:
        """Return what the new chute takes of the old one's cache. All else is worked out anew."""
        if self.updateType not in ("update", "rollback"):
            return {key: old.getCache(key) for key in ("containers", "images", "previous", "previousImages")}
        back = self.updateType == "rollback"
        return {"containers": old.getCache("containers"), "images": old.getCache("previousImages") if back else None,
                "previous": old.descriptor, "previousImages": old.getCache("images")}

    def execute(self) -> None:
        """Do as every update does, with the chute's name in the journal meanwhile."""
        directories = [] if self.old else [path for path in (data_dir(self.name), system_dir(self.name))
                                           if not Path(path).exists()]
        journal.begin(self.name, directories)
        super().execute()
        if not self.inconsistent:
            journal.end(self.name)

    def saveState(self) -> None:
        """Put the chute into the store as it is now, or take it out. From here on the update counts as done."""
        if TARGET_STATES[self.updateType] is None:
            self.chuteStor.deleteChute(self.name)
        else:
            self.chuteStor.saveChute(self._stored())

    def revertState(self) -> None:
        """Put the store back to what it was before saveState, if need be."""
        if self.old is not None:
            self.chuteStor.saveChute(self.old)
        elif self.chuteStor.getChute(self.name) is not None:
            self.chuteStor.deleteChute(self.name)

    def _stored(self) -> Chute:
        """Return the new chute, with its descriptor also if it is stopped."""
        chute = copy.copy(self.new)
        if self.updateType == "stop" and self.old is not None:
            chute.inherit(self.old)
        return chute


class UpdateRouter(UpdateObject):
    """An update of the router itself: setconfig, which replaces its own sections of a UCI file.

    A request sets besides what the others have ``configFile``, the name of the file, and ``sections``, a list of
    (title, options) as in UCIConfig.
    """

    updateModuleList: ClassVar[list[ModuleType]] = [hostconfig]

    def __init__(self, obj: Mapping[str, Any]) -> None:
        super().__init__({**obj, "name": settings.RESERVED_CHUTE})
        self.configFile = str(obj.get("configFile"))
        self.sections: list[Section] = list(obj.get("sections") or [])
        self.failing: hostconfig.Failing = {}

    def complete(self, **kwargs: Any) -> None:
        """As in UpdateObject, in words that fit a router."""
        done = {"message": f"Router {self.updateType} {self.configFile} success"} if kwargs.get("success") else {}
        super().complete(**{**kwargs, **done})


UPDATE_CLASSES: dict[str, type[UpdateObject]] = {"CHUTE": UpdateChute, "ROUTER": UpdateRouter}


def parse(obj: Mapping[str, Any]) -> UpdateObject:
    """Return the update that a request asks for.

    Raises:
        Exception: ``('BadUpdateType', …)``, there is no such class of updates.
    """
    cls = UPDATE_CLASSES.get(str(obj.get("updateClass")))
    if cls is None:
        raise Exception("BadUpdateType", "updateClass is invalid, must be one of: " + ", ".join(UPDATE_CLASSES))
    return cls(obj)
