"""The API's description of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudly.http.api.app import build
from tests.cloudly.api_given import operator, routes
from tests.cloudly.given import Plane
from tools.docs import pages

ROOT = Path(__file__).resolve().parents[2]


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = build().openapi()["paths"]
    return [(path, one) for path, item in paths.items() for one in item.values()]


def test_the_description_in_the_docs_is_the_one_of_the_code() -> None:
    kept = (ROOT / "docs/schema/openapi.json").read_text(encoding="utf-8")

    assert kept == pages()["schema/openapi.json"](), "run `make docs`"


@pytest.mark.anyio
async def test_it_is_served_as_it_stands_in_the_docs(plane: Plane) -> None:
    served = await operator(plane).get("/openapi.json")

    assert served == json.loads(pages()["schema/openapi.json"]())
    assert served["openapi"].startswith("3.1")


def test_every_operation_has_a_name_of_its_own_a_permission_and_errors_as_problems() -> None:
    found = operations()

    assert len({one["operationId"] for _, one in found}) == len(found) == len(routes())
    for path, one in found:
        assert one["x-permission"], path
        errors = {status: answer for status, answer in one["responses"].items() if status >= "4"}
        assert {"401", "403", "422"} <= set(errors), path
        for answer in errors.values():
            assert list(answer["content"]) == ["application/problem+json"], path


def test_every_parameter_that_is_text_has_a_form_or_a_length() -> None:
    for path, one in operations():
        for parameter in one.get("parameters", ()):
            schema = parameter["schema"]
            for form in schema.get("anyOf", [schema]):
                if form.get("type") == "string":
                    assert {"pattern", "maxLength", "enum"} & set(form), (path, parameter["name"])
