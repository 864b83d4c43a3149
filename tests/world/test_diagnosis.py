"""Diagnostics on demand: asked by an operator, told with the heartbeat, answered by the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloudly.problems import BadOrder
from cloudly.store import diagnoses
from interfaces.world import World
from simulators.world import run_virtual
from tests.world.kit import Instead, Place, a_place


def newest(place: Place) -> dict[str, Any]:
    return dict(
        place.store.read_now(lambda db: diagnoses.newest(db, place.node_number(), limit=1))[0]
    )


def found(place: Place) -> dict[str, dict[str, str]]:
    return {one["what"]: one for one in json.loads(newest(place)["answer"])["findings"]}


def test_an_operator_asks_and_the_node_says_how_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")

            place.ask_diagnosis()
            await place.until(lambda: newest(place)["answered_at_ms"] is not None)

            assert found(place)["service main"]["verdict"] == "ok"
            assert found(place)["supervisor"]["seen"].startswith("version 19.0.5, applied")
            assert "facts that Cloudly has not acknowledged" in found(place)["journal"]["seen"]
            assert place.kinds("diagnosis/1") == ["diagnosis-asked", "diagnosis-answered"]

    run_virtual(story)


def test_it_is_answered_once_however_often_it_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.ask_diagnosis()
            await place.until(lambda: newest(place)["answered_at_ms"] is not None)
            first = newest(place)

            await place.world.sleep(400)
            second = place.ask_diagnosis()
            await place.until(
                lambda: (
                    newest(place)["id"] == second and newest(place)["answered_at_ms"] is not None
                )
            )

            assert newest(place)["id"] != first["id"]
            assert place.state("diagnosis/2") == "done"
            assert place.state("diagnosis/3") is None

    run_virtual(story)


def test_what_is_not_well_is_said_with_what_to_do(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.to_supervisor.plugged = False

            place.ask_diagnosis()
            await place.until(lambda: newest(place)["answered_at_ms"] is not None)

            assert found(place)["supervisor"]["verdict"] == "bad"
            assert found(place)["supervisor"]["todo"]

    run_virtual(story)


def test_a_node_that_does_not_answer_is_asked_no_more_than_a_few_times(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.agent_scope.cancel()
            for _ in range(diagnoses.MOST_WAITING):
                place.ask_diagnosis()

            with pytest.raises(BadOrder, match="wait for an answer already"):
                place.ask_diagnosis()

            await place.world.sleep(diagnoses.GIVEN_UP_MS / 1000 + 1)
            place.ask_diagnosis()

    run_virtual(story)


def test_a_node_that_is_stopped_while_it_looks_looks_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            silent = Instead(place.to_supervisor.inner, lambda _: None)
            place.to_supervisor.inner = Slow(silent, place.world)
            place.ask_diagnosis()
            await place.until_state("diagnosis/1", "looking")
            await place.stop_agent()

            place.to_supervisor.inner = silent
            place.start_agent()
            await place.until(lambda: newest(place)["answered_at_ms"] is not None)

            assert place.kinds("diagnosis/1") == ["diagnosis-asked", "diagnosis-answered"]
            assert found(place)["supervisor"]["verdict"] == "ok"

    run_virtual(story)


class Slow(httpx.AsyncBaseTransport):
    """Answers after ten minutes."""

    def __init__(self, inner: httpx.AsyncBaseTransport, world: World) -> None:
        self._inner = inner
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._world.sleep(600)
        return await self._inner.handle_async_request(request)
