"""Generates, orders, runs and aborts the plans of an update.

The functions here keep the documented face: True means that something went wrong.
"""

import errno
import logging
import traceback
from typing import TYPE_CHECKING, Any

from paradrop.backend.exc.plangraph import PlanMap
from paradrop.lib.api.pdapi import getErrorToken
from paradrop.lib.errors import ParadropError

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject

log = logging.getLogger(__name__)


def generatePlans(update: "UpdateObject") -> bool:
    """Let every module of ``update.updateModuleList`` add its plans. True if one refuses the update."""
    return any(module.generatePlans(update) for module in update.updateModuleList)


def aggregatePlans(update: "UpdateObject") -> PlanMap:
    """Return a new PlanMap of the update's plans, in order and without duplicates, and make it the update's own."""
    update.plans = update.plans.withoutDuplicates()
    update.plans.sort()
    return update.plans


def executePlans(update: "UpdateObject") -> bool:
    """Run the update's plans as ``function(update, *args)``.

    A plan that returns a function, or a list of functions, has these skipped from then on.

    Returns True as soon as one raises; then ``update.failure`` says why, and abortPlans must be called. What nobody
    foresaw goes to the log only, under a token that is told.
    """
    while (todo := update.plans.getNextTodo()) is not None:
        func, args = todo
        log.debug("%s: %s", update, func)
        try:
            skip = func(update, *args)
        except Exception as error:
            update.failure = told(error, f"{update}: {func} failed")
            _note(update, error)
            return True
        for other in skip if isinstance(skip, list) else [skip]:
            if callable(other):
                update.plans.registerSkip(other)
    return False


def abortPlans(update: "UpdateObject") -> bool:
    """Take back what executePlans did, the newest plan first.

    Everything is tried, also after one undo raised. Returns False if all went well and the router is as it was before,
    True if anything could not be taken back, which ``update.responses`` then tells.
    """
    failed = False
    while (abort := update.plans.getNextAbort()) is not None:
        func, args = abort
        try:
            func(update, *args)
        except Exception as error:
            failed = True
            log.critical("%s: cannot take back with %s: %s; the router may be inconsistent", update, func, error,
                         exc_info=True)
            _note(update, error)
    return failed


def told(error: Exception, where: str) -> str:
    """Log an exception and return what the one who asked is told of it."""
    if isinstance(error, ParadropError):
        log.warning("%s: %s", where, error.message)
        log.debug("", exc_info=error)
        return error.message
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        log.error("%s", where, exc_info=error)
        return f"cannot write to the router's disk: {error.strerror}"
    token = getErrorToken()
    log.error("error %s: %s", token, where, exc_info=error)
    return f"The update failed because of an error in the router's software; look for {token} in the router's log."


def _note(update: "UpdateObject", error: Exception) -> None:
    entry: dict[str, Any] = {"exception": str(error), "traceback": traceback.format_exc()}
    update.responses.append(entry)
