"""The OpenAPI 3.1 document of the local API, from the same table as its routes. The agent itself never imports this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from baserunner.local_api.table import ENDPOINTS, Endpoint
from interfaces.local import PROTOCOL
from interfaces.problem import PROBLEM_MEDIA_TYPE, Problem
from interfaces.wire import Wire

Mode = Literal["validation", "serialization"]

REFS = "#/components/schemas/{model}"
HEAD = {
    "title": "BaseRunner's local API",
    "version": str(PROTOCOL),
    "description": "Private to one device: over a unix socket in a directory shared with a neighbour app, or over "
    "127.0.0.1 where that was chosen. One request per connection. docs/onebox.md says how a neighbour is set up.",
}


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": HEAD,
        "servers": [{"url": "http://baseos", "description": "the host's name over the socket"}],
        "security": [{"capability": []}],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"capability": _capability()}},
    }


def _schemas() -> dict[str, Any]:
    models: dict[type[Wire], Mode] = {Problem: "serialization"}
    for endpoint in ENDPOINTS:
        models[endpoint.answers] = "serialization"
        if endpoint.asks is not None:
            models[endpoint.asks] = "validation"
    in_order = sorted(models.items(), key=lambda pair: pair[0].__name__)
    _, schemas = models_json_schema(in_order, ref_template=REFS)
    found: dict[str, Any] = schemas["$defs"]
    return found


def _capability() -> dict[str, str]:
    return {
        "type": "http",
        "scheme": "bearer",
        "description": "The capability token of this boot of the host: the file `token` beside the socket.",
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.does,
        "responses": {
            str(endpoint.status): {
                "description": endpoint.answers.__name__,
                "content": {"application/json": _ref(endpoint.answers)},
            },
            **{str(status): _refusal(words) for status, words in endpoint.refusals.items()},
        },
    }
    if endpoint.asks is not None:
        content = {"application/json": _ref(endpoint.asks)}
        operation["requestBody"] = {"required": True, "content": content}
    if "{lock}" in endpoint.path:
        schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
        lock = {"name": "lock", "in": "path", "required": True, "schema": schema}
        operation["parameters"] = [lock]
    return operation


def _refusal(words: str) -> dict[str, Any]:
    return {"description": words, "content": {PROBLEM_MEDIA_TYPE: _ref(Problem)}}


def _ref(model: type) -> dict[str, Any]:
    return {"schema": {"$ref": REFS.format(model=model.__name__)}}
