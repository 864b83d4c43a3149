"""Fleets: nodes that share a desired state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest

from cloudly.cli.release import apply, order
from cloudly.problems import BadOrder, StoreUnavailable
from cloudly.service import orders
from cloudly.store import fleets, join_tokens
from cloudly.store.fleets import Moved
from cloudly.store.sql import Connection
from cloudly.store.wanted import NewRelease
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import new_id, now_ms
from tests.cloudly.given import HOUR_MS, UUID, Device, Plane

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

T = TypeVar("T")

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"


def make(plane: Plane, name: str) -> int:
    return plane.store.write_now(lambda db: fleets.create(db, name, now_ms(plane.world)))


def token_into(plane: Plane, fleet: int, *, uses: int = 9) -> str:
    token, now = new_join_token(plane.world), now_ms(plane.world)
    new = join_tokens.NewToken(token, "", uses, now, now + HOUR_MS, fleet)
    plane.store.write_now(lambda db: join_tokens.create(db, new))
    return token


def move(plane: Plane, node_id: str, fleet: str) -> Moved:
    number, now = plane.node(node_id)["id"], now_ms(plane.world)
    draw = partial(new_id, plane.world)
    return plane.store.write_now(
        lambda db: fleets.move(db, number, fleets.find(db, fleet), new_id=draw, now_ms=now)
    )


def wants(plane: Plane, fleet: str, version: str) -> list[dict[str, object]]:
    """`cloudly release set --fleet FLEET VERSION`."""
    return plane.store.write_now(
        lambda db: apply(db, version, UpdatePolicy(), None, again=False, fleet=fleet)
    )


async def version_of(device: Device) -> str | None:
    app = (await device.beat()).json()["desired"]["app"]
    return None if app is None else str(app["version"])


async def test_a_node_comes_into_the_fleet_of_its_join_token_and_gets_what_that_runs(
    plane: Plane,
) -> None:
    make(plane, "lobby")
    plane.release("1.0.0")
    wants(plane, "lobby", "1.0.0")
    device, other = plane.device(), plane.device(OTHER)

    await device.ask(token_into(plane, 2))
    await other.ask(plane.join_token())

    assert (plane.node(UUID)["fleet"], plane.node(OTHER)["fleet"]) == ("lobby", "default")
    assert await version_of(device) == "1.0.0"


async def test_a_release_for_one_fleet_leaves_the_others_as_they_are(plane: Plane) -> None:
    make(plane, "lobby")
    inside, outside = plane.device(), plane.device(OTHER)
    await inside.ask(token_into(plane, 2))
    await outside.ask(plane.join_token())
    plane.release("1.0.0", OTHER)
    plane.release("2.0.0", UUID)
    plane.release("3.0.0", UUID)

    done = wants(plane, "lobby", "2.0.0")

    assert [one["node"] for one in done] == [UUID]
    assert (await version_of(inside), await version_of(outside)) == ("2.0.0", "1.0.0")


async def test_a_release_for_all_is_for_each_fleet(plane: Plane) -> None:
    make(plane, "lobby")

    plane.release("1.0.0")

    assert [row["version"] for row in plane.store.read_now(fleets.listed)] == ["1.0.0", "1.0.0"]


async def test_a_large_fleet_is_ordered_in_slices_and_asking_again_orders_the_rest(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "SLICE", 2)
    make(plane, "lobby")
    devices = [await plane.device(f"node{number}").enroll() for number in range(5)]
    new = NewRelease("c" * 40, "1.0.0", {"main": f"registry.local/main@sha256:{'1' * 64}"}, {})
    decisions: list[object] = []

    def write(work: Callable[[Connection], T]) -> T:
        decisions.append(work)
        return plane.store.write_now(work)

    def breaks(work: Callable[[Connection], T]) -> T:
        if len(decisions) == 2:
            raise StoreUnavailable("nothing was written")
        return write(work)

    with pytest.raises(StoreUnavailable):
        order(breaks, new, UpdatePolicy(), None, again=False)
    ordered = len(plane.rows("deployment"))
    decisions.clear()
    done = order(write, new, UpdatePolicy(), None, again=False)

    assert ordered == 2
    assert len(decisions) == 5  # the defaults, three slices of one fleet, and an empty one
    assert [one["node"] for one in done] == [device.node_id for device in devices]
    assert [one.get("unchanged") for one in done] == ["has it already"] * 2 + [None] * 3
    assert [await version_of(device) for device in devices] == ["1.0.0"] * 5


async def test_what_cannot_be_ordered_changes_no_fleet(plane: Plane) -> None:
    with pytest.raises(BadOrder):
        order(plane.store.write_now, "9.9", UpdatePolicy(), None, again=False)

    assert [row["release"] for row in plane.rows("fleet")] == [None]


async def test_a_node_that_is_moved_gets_what_its_new_fleet_shall_run(plane: Plane) -> None:
    device = await plane.device().enroll()
    plane.release("1.0.0", UUID)
    make(plane, "lobby")
    make(plane, "empty")
    await plane.device(OTHER).enroll()
    plane.release("2.0.0", OTHER)
    wants(plane, "lobby", "2.0.0")

    stays = move(plane, UUID, "empty")
    before = await version_of(device)
    moved = move(plane, UUID, "lobby")
    again = move(plane, UUID, "lobby")

    assert (stays.generation, before) == (None, "1.0.0")
    assert (moved.generation, await version_of(device)) == (2, "2.0.0")
    assert again == Moved(None, "it has that release already")


async def test_a_move_that_would_bring_a_release_back_is_refused_and_nothing_moves(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    make(plane, "lobby")
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/1", "applying", "rollback-needed", deployment=bad)
    wants(plane, "lobby", "2.0.0")

    with pytest.raises(BadOrder, match="needed a rollback"):
        move(plane, UUID, "lobby")

    assert plane.node(UUID)["fleet"] == "default"


async def test_the_app_is_the_same_in_each_fleet_so_volumes_stay(plane: Plane) -> None:
    make(plane, "lobby")
    plane.release("1.0.0")
    wants(plane, "lobby", "1.0.0")
    key = "5016ddb664b64d5685d6560d4ec35bef"
    headers = {"authorization": f"Bearer {plane.join_token()}"}
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": key}, headers=headers
    )

    async def apps() -> list[str]:
        answer = await plane.client.get(
            f"/device/v3/{UUID}/state", headers={"authorization": f"Bearer {key}"}
        )
        return list(answer.json()[UUID]["apps"])

    before = await apps()
    move(plane, UUID, "lobby")

    assert await apps() == before == [plane.store.app_uuid]


async def test_what_is_in_use_is_not_removed(plane: Plane) -> None:
    make(plane, "lobby")
    await plane.device().ask(token_into(plane, 2, uses=1))
    make(plane, "spare")
    token_into(plane, 3)

    for name, says in (("lobby", "1 nodes"), ("spare", "1 join tokens"), ("default", "stays")):
        with pytest.raises(BadOrder, match=says):
            plane.store.write_now(lambda db, name=name: fleets.remove(db, fleets.find(db, name)))  # type: ignore[misc]

    move(plane, UUID, "default")
    plane.store.write_now(lambda db: fleets.remove(db, fleets.find(db, "lobby")))
    assert [row["name"] for row in plane.store.read_now(fleets.listed)] == ["default", "spare"]


async def test_names_are_taken_once_and_strangers_are_not_found(plane: Plane) -> None:
    make(plane, "lobby")

    with pytest.raises(BadOrder, match="already"):
        make(plane, "lobby")
    with pytest.raises(BadOrder, match="no fleet 'hall'"):
        plane.store.read_now(lambda db: fleets.find(db, "hall"))
