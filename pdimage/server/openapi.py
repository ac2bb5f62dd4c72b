"""The OpenAPI 3.1 document of the server, made of its operations."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pdimage.server.operations import ERROR, Operation

# Not a status of HTTP, but one of the documented API.
_PHRASES = {420: "Defaults too large"}


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """Return the document that describes exactly these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Build server", "version": version,
                 "description": "Firmware on demand, and a registry of routers."},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR},
                       "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _describe(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.about,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
              for name in re.findall(r"{(\w+)}", operation.path)),
            *({"name": name, "in": "query", "required": name in operation.required, "schema": {"type": "string"}}
              for name in operation.query)],
        "responses": {str(status): _answer(operation, status) for status in (*operation.answers, *operation.errors)},
    }
    if operation.secured:
        described["security"] = [{"token": []}]
    if operation.body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    return described


def _answer(operation: Operation, status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _PHRASES.get(status) or HTTPStatus(status).phrase}
    if status in operation.answers:
        schema = operation.answers[status]
        if schema is not None:
            answer["content"] = {operation.media: {"schema": schema}}
        elif operation.media != "application/json":
            answer["content"] = {operation.media: {}}
    else:
        answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return answer
