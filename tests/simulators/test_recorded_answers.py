"""Every recorded answer of the Supervisor's local API, replayed against the simulator in the recorded phase.

Compared are the status, the headers that matter, and the body: keys in their order, types, and every value that is
determined. What is not determined (ids of containers and contents, times, fresh keys) is named in `UNDETERMINED`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from simulators.supervisor.express import etag_of
from simulators.world import run_virtual
from tests.simulators.lab import BEFORE, PHASES, RECORDINGS, Lab, a_lab

NOT_REPLAYED: Final = {
    ("POST_v1_purge", "svc", 0): "the recorder gave up waiting: there is no answer to compare with",
}
"""(file, phase, index among the rows of that phase): why."""

UNDETERMINED: Final = {
    "containerId",
    "createdAt",
    "dockerImageId",
    "command",  # what the image says it runs
    "source",  # the address of the laboratory's backend
}
HEX_64: Final = re.compile(r"(sha256:)?[0-9a-f]{64}")
MATTER: Final = ("content-type", "content-security-policy", "x-content-type-options")

OTHER_ORDER: Final = {"GET_v2_local_target-state"}
"""Here the order of config names depends on the history of the laboratory's database."""


def _rows() -> list[Any]:
    cases = []
    for file in sorted((RECORDINGS / "device-api").glob("[A-Z]*_*.json")):
        if file.stem.startswith("TIMELINE"):
            continue
        seen: dict[str, int] = {}
        for row in json.loads(file.read_text()):
            index = seen[row["phase"]] = seen.get(row["phase"], -1) + 1
            name = f"{file.stem}/{row['phase']}/{index}/{row['label'] or 'plain'}"
            if (file.stem, row["phase"], index) not in NOT_REPLAYED:
                cases.append(pytest.param(file.stem, row, id=name))
    return cases


CASES: Final = _rows()


@pytest.mark.parametrize(("file", "row"), CASES)
def test_the_simulator_answers_as_the_supervisor_did(
    file: str, row: dict[str, Any], tmp_path: Path
) -> None:
    answer = run_virtual(_answer, file, row, tmp_path)

    _same(file, answer, row)


async def _answer(file: str, row: dict[str, Any], tmp: Path) -> httpx.Response:
    phase = PHASES[row["phase"]]
    async with a_lab(tmp, managed=phase.managed, key=phase.key, app_key=phase.app_key) as lab:
        await phase.prepare(lab)
        before = BEFORE.get((row["phase"], file, row["label"]))
        if before is not None:
            await before(lab)
        return await _ask(lab, row["request"])


async def _ask(lab: Lab, request: dict[str, Any]) -> httpx.Response:
    del lab.client.headers["authorization"]
    body = request["body"]
    content = body if body is None or isinstance(body, str) else json.dumps(body)
    return await lab.client.request(
        request["method"], request["path"], headers=request["headers"], content=content
    )


def _same(file: str, answer: httpx.Response, row: dict[str, Any]) -> None:
    assert answer.status_code == row["status"]
    _same_headers(answer, dict(row["headers"]))
    _same_body(file, answer, row)


def _same_headers(answer: httpx.Response, expected: dict[str, str]) -> None:
    wanted = {name.lower(): value for name, value in expected.items()}
    for name in MATTER:
        assert answer.headers.get(name) == wanted.get(name), name
    assert ("etag" in answer.headers) == ("etag" in wanted)


def _same_body(file: str, answer: httpx.Response, row: dict[str, Any]) -> None:
    raw = row["body"] if isinstance(row["body"], str) else _compact(row["body"])
    wanted = {name.lower(): value for name, value in row["headers"]}
    if answer.content == raw.encode():
        assert answer.headers.get("etag") == wanted.get("etag")
        assert answer.headers.get("content-length") == wanted.get("content-length")
        return
    if file == "POST_v1_regenerate-api-key":
        assert re.fullmatch(r"[0-9a-f]{32}", answer.text)
        return
    ours, theirs = _masked(answer.json()), _masked(row["body"])
    if file in OTHER_ORDER:
        assert ours == theirs
    else:
        assert _compact(ours) == _compact(theirs)
    assert answer.headers["etag"] == etag_of(answer.content)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _masked(value: Any) -> Any:
    """The same with what is not determined replaced by its type."""
    if isinstance(value, dict):
        return {
            key: type(inner).__name__ if key in UNDETERMINED else _masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, str) and HEX_64.fullmatch(value):
        return "an id"
    return value


def test_every_recorded_row_is_replayed_but_those_that_say_why() -> None:
    files = [
        file
        for file in (RECORDINGS / "device-api").glob("*.json")
        if not file.stem.startswith("TIMELINE")
    ]
    rows = sum(len(json.loads(file.read_text())) for file in files)

    assert len(CASES) == rows - len(NOT_REPLAYED)
    assert len(CASES) == 414


PROBE: Final = next(
    row
    for row in json.loads((RECORDINGS / "device-api" / "GET_v1_device.json").read_text())
    if row["label"] == "etag"
)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda row: row.update(status=201), id="another status"),
        pytest.param(lambda row: row["headers"].pop(0), id="no content type"),
        pytest.param(lambda row: row["headers"].pop(2), id="no etag"),
        pytest.param(lambda row: row["body"].update(status="Running"), id="another value"),
        pytest.param(lambda row: row["body"].update(more=1), id="a key more"),
        pytest.param(lambda row: row["body"].pop("commit"), id="a key less"),
        pytest.param(lambda row: row["body"].update(api_port="48484"), id="another type"),
        pytest.param(
            lambda row: row["body"].update(api_port=row["body"].pop("api_port")), id="another order"
        ),
    ],
)
def test_the_comparison_sees_an_answer_that_is_not_the_recorded_one(
    spoil: Callable[[dict[str, Any]], object],
) -> None:
    answer = httpx.Response(
        200, headers=[tuple(pair) for pair in PROBE["headers"]], content=_compact(PROBE["body"])
    )
    _same("GET_v1_device", answer, PROBE)
    spoilt = json.loads(json.dumps(PROBE))

    spoil(spoilt)

    with pytest.raises(AssertionError):
        _same("GET_v1_device", answer, spoilt)
