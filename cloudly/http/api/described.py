"""The API described by itself, OpenAPI 3.1: also in docs/schema/openapi.json, which a test compares."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cloudly.http.api.door import PERMISSION
from interfaces.problem import PROBLEM_MEDIA_TYPE

PREFIX = "/api/v1"
_MADE: dict[tuple[int, ...], dict[str, Any]] = {}


def described(api: FastAPI) -> dict[str, Any]:
    """The same text for the same routes, wherever they are served; it takes a second to make, so it is made once."""
    routes = tuple(map(id, api.routes))  # they live as long as their modules
    if routes not in _MADE:
        document = get_openapi(
            title="Cloudly",
            version="1",
            summary="The control plane of BaseOS, for programs.",
            description="Every route needs an API token, `Authorization: Bearer bat_...`; `x-permission` says what"
            " its role must allow. Errors are RFC 9457 problems. docs/api.md tells more.",
            routes=api.routes,
            servers=[{"url": PREFIX}],
        )
        document["components"]["securitySchemes"] = {
            "apiToken": {"type": "http", "scheme": "bearer", "bearerFormat": "bat_..."}
        }
        document["security"] = [{"apiToken": []}]
        for path in document["paths"].values():
            for operation in path.values():
                _tell(operation)
        _MADE[routes] = document
    return _MADE[routes]


def _tell(operation: dict[str, Any]) -> None:
    """Errors have a media type of their own; who may do it stands in the text too."""
    needs = f"Needs `{operation[PERMISSION]}`."
    operation["description"] = "\n\n".join(filter(None, (operation.get("description"), needs)))
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            answer["content"] = {PROBLEM_MEDIA_TYPE: answer["content"]["application/json"]}
