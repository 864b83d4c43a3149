"""Compose files for stories: one service and what a story is about."""

from __future__ import annotations

import json
from typing import Any

from cloudly.balena.compose.notes import BadCompose, Note
from cloudly.balena.compose.read import Composed, read_compose
from cloudly.balena.compose.service import ComposedService


def image(name: str = "main", digit: str = "1") -> str:
    return f"registry.example/v2/{name}@sha256:{digit * 64}"


def file_of(service: dict[str, Any] | None = None, **sections: Any) -> bytes:
    """A file with one service `main`; JSON is YAML."""
    main = {"image": image()} | (service or {})
    return json.dumps({"services": {"main": main}} | sections).encode()


def composed(service: dict[str, Any] | None = None, **sections: Any) -> Composed:
    return read_compose(file_of(service, **sections))


def main_of(service: dict[str, Any] | None = None, **sections: Any) -> ComposedService:
    (main,) = composed(service, **sections).services
    return main


def problems_of(document: bytes | str) -> tuple[Note, ...]:
    """What is refused; nothing for a good file."""
    try:
        read_compose(document.encode() if isinstance(document, str) else document)
    except BadCompose as bad:
        return bad.problems
    return ()


def the_problem(service: dict[str, Any], **sections: Any) -> Note:
    (problem,) = problems_of(file_of(service, **sections))
    return problem
