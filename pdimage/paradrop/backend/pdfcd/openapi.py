"""The OpenAPI 3.1 document, made of the operations themselves."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from paradrop.backend.pdfcd.operations import Operation
from paradrop.backend.pdfcd.problems import MEDIA_TYPE

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "token"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What cannot be done, and what to do about it"},
        "token": {"type": "string", "description": "Finds the line of the router's log"},
        "mistakes": {"type": "array", "items": {"type": "string"},
                     "description": "Every mistake of a descriptor, with its path"},
    },
}


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """Return the document that describes exactly these operations."""
    operations = list(operations)
    types = [kind for operation in operations for kind in (operation.answer, operation.body, operation.query)
             if kind is not None and not isinstance(kind, str)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Paradrop router", "version": version,
                 "description": "Chutes of a router: install, update, roll back, watch."},
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"},
                                "token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation, by_type: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    fields = components[operation.query.__name__]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                  for name in re.findall(r"{(\w+)}", operation.path)]
    parameters += [{"name": name, "in": "query", "required": name in fields.get("required", ()), "schema": schema}
                   for name, schema in fields["properties"].items()]
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {str(operation.status): _answer(operation, by_type)},
        "security": [{"password": []}, {"token": []}] if operation.role else [],
    }
    if operation.role:
        described["description"] = f"Needs the role {operation.role}, or one above it."
    if operation.body:
        upload = isinstance(operation.body, str)
        media = operation.body if upload else "application/json"
        schema = {"type": "string", "format": "binary"} if upload else by_type[repr(operation.body)]
        described["requestBody"] = {"required": True, "content": {media: {"schema": schema}}}
    for status in operation.all_errors:
        described["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return described


def _answer(operation: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if isinstance(operation.answer, str):
        answer["content"] = {operation.answer: {"schema": {"type": "string"}}}
    elif operation.answer is not None:
        answer["content"] = {"application/json": {"schema": by_type[repr(operation.answer)]}}
    if operation.status == 202:
        answer["headers"] = {"Location": {"description": "Where the change can be watched",
                                          "schema": {"type": "string"}}}
    return answer
