"""Errors of ``/api/v1``: problem+json (RFC 9457), each with the token that finds its line in the log."""

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from paradrop.lib.api.pdapi import getErrorToken
from paradrop.lib.errors import ConflictError, DescriptorError, ParadropError
from paradrop.lib.utils.dockerclient import DockerError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that cannot be done as it stands: the HTTP status and one sentence for the one who asked."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def problem_of(error: Exception) -> Problem:
    """Return the problem to tell for any exception. What nobody foresaw is told as 500, without its text."""
    match error:
        case Problem():
            return error
        case ConflictError():
            return Problem(409, error.message, mistakes=error.mistakes)
        case DescriptorError():
            return Problem(422, error.message, mistakes=error.mistakes)
        case DockerError():
            return Problem(503, error.message)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return Problem(507, f"cannot write to the router's disk: {error.strerror}")
        case ParadropError():
            return Problem(409, error.message)
    return Problem(500, "cannot answer: an error in the router's software; its log has the token")


def response(error: Exception, what: str) -> JSONResponse:
    """Log an error under a token and return the answer that carries the token; ``what`` names the request."""
    problem, token = problem_of(error), getErrorToken()
    if problem.status == 500:
        log.error("error %s: %s", token, what, exc_info=error)
    else:
        log.info("error %s: %s: %d %s", token, what, problem.status, problem.detail)
    content = {"type": "about:blank", "title": HTTPStatus(problem.status).phrase, "status": problem.status,
               "detail": problem.detail, "token": token, **problem.extra}
    return JSONResponse(content, problem.status, problem.headers, MEDIA_TYPE)
