"""Pins and bans by the admin API: what holds a node, what is given to nobody, and what lifts either."""

from __future__ import annotations

import pytest

from cloudly.access import Role
from cloudly.service import bans as service
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.compose_files import image
from tests.cloudly.given import HOUR_MS, UUID, Plane, code_of
from tests.cloudly.test_api_paging import walk

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


async def begun(plane: Plane) -> Operator:
    """An operator with two releases, and a node."""
    who = operator(plane, Role.OPERATOR, "ops")
    for digit in "12":
        await who.release(f"{digit}.0.0", image=image(f"app-{digit}", digit))
    await plane.device().enroll()
    return who


async def test_a_pinned_node_takes_nothing_else_until_the_pin_is_lifted(plane: Plane) -> None:
    who = await begun(plane)
    asked = {"release": "1.0.0", "reason": "a fair until Sunday"}

    pinned = await who.does("PUT", f"/nodes/{UUID}/pin", asked)
    refused = await who.errs("PUT", f"/nodes/{UUID}/release", {"release": "2.0.0"})
    lifted = await who("POST", f"/nodes/{UUID}/unpin", json={"reason": "it is over"})
    twice = await who("POST", f"/nodes/{UUID}/unpin")
    ordered = await who.does("PUT", f"/nodes/{UUID}/release", {"release": "2.0.0"})

    assert (pinned["scope"], pinned["name"], pinned["version"], pinned["by"]) == (
        "node", UUID, "1.0.0", "api/ops",
    )  # fmt: skip
    assert (pinned["until_ms"], pinned["holds"]) == (None, True)
    assert refused[0] == 409
    assert "a fair until Sunday" in refused[1]
    assert (lifted.status_code, code_of(twice)) == (204, (404, "not-found"))
    assert ordered["generation"] == 1
    acts = [(row["actor"], row["act"]) for row in plane.rows("audit")]
    assert ("api/ops", "node.pinned") in acts
    assert ("api/ops", "node.unpinned") in acts


async def test_a_pin_of_a_fleet_says_what_its_new_nodes_get_and_ends_by_itself(
    plane: Plane,
) -> None:
    who = await begun(plane)
    await who.does("POST", "/fleets", {"name": "shops"})

    pinned = await who.does(
        "PUT", "/fleets/shops/pin", {"release": "1.0.0", "reason": "black friday", "until": "2h"}
    )
    fleet = await who.get("/fleets/shops")
    moved = await who.does("PUT", f"/nodes/{UUID}/fleet", {"fleet": "shops"})
    await plane.world.sleep(2 * HOUR_MS / 1000)
    ended = await who.get("/fleets/shops/pin")

    assert pinned["until_ms"] - pinned["at_ms"] == 2 * HOUR_MS
    assert fleet["wanted_version"] == "1.0.0"
    assert moved["generation"] == 1
    assert (pinned["holds"], ended["holds"]) == (True, False)
    assert (await who.get("/fleets/shops"))["wanted_version"] is None


async def test_a_pin_without_a_release_holds_what_runs_and_takes_the_place_of_another(
    plane: Plane,
) -> None:
    who = await begun(plane)
    await who.does("PUT", f"/nodes/{UUID}/pin", {"release": "1.0.0", "reason": "one"})

    await who.does("PUT", f"/nodes/{UUID}/pin", {"reason": "two"})
    shown = await who.get(f"/nodes/{UUID}/pin")

    assert (shown["version"], shown["release"], shown["reason"]) == (None, None, "two")
    assert len(plane.rows("pin")) == 1


async def test_pins_come_in_pages_those_of_fleets_first(plane: Plane) -> None:
    who = await begun(plane)
    for number in range(4):
        await plane.device(f"node{number}").enroll()
        await who.does("PUT", f"/nodes/node{number}/pin", {"reason": "so"})
    await who.does("PUT", "/fleets/default/pin", {"reason": "so"})

    items, pages = await walk(operator(plane, Role.VIEWER), "/pins")

    assert [one["name"] for one in items] == ["default", "node0", "node1", "node2", "node3"]
    assert pages == 3
    odd = await who("GET", "/pins", params={"after": "node.x"})
    assert code_of(odd) == (422, "malformed")


async def test_a_pin_needs_a_reason_and_something_to_hold(plane: Plane) -> None:
    who = await begun(plane)

    answers = [
        await who("PUT", f"/nodes/{UUID}/pin", json={"release": "1.0.0"}),
        await who("PUT", f"/nodes/{UUID}/pin", json={"reason": ""}),
        await who("PUT", f"/nodes/{UUID}/pin", json={"reason": "x", "until": "soon"}),
        await who("PUT", "/nodes/nobody/pin", json={"reason": "x"}),
        await who("PUT", "/fleets/nowhere/pin", json={"reason": "x"}),
        await who("PUT", f"/nodes/{UUID}/pin", json={"reason": "x", "release": "9.9"}),
        await who("GET", f"/nodes/{UUID}/pin"),
    ]

    assert [one.status_code for one in answers] == [422, 422, 422, 404, 404, 404, 404]


async def test_what_is_banned_is_given_to_nobody_and_its_reach_is_told(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WINDOW", 2)
    who = await begun(plane)
    for number in range(5):
        device = await plane.device(f"node{number}").enroll()
        done = await who.does("PUT", f"/nodes/node{number}/release", {"release": "1.0.0"})
        if number < 3:
            await device.tell("app-update/1", "offered", "succeeded", deployment=done["deployment"])
    digest = image().rpartition("@")[2]  # that of 1.0.0

    reach = await who.does("POST", "/bans", {"what": digest, "reason": "it eats flash"})
    twice = await who.errs("POST", "/bans", {"what": digest, "reason": "again"})
    refused = await who.errs("PUT", f"/nodes/{UUID}/release", {"release": "1.0.0"})
    planned = await who.errs("POST", "/rollouts", {"release": "1.0.0"})

    assert (reach["running"], reach["coming"]) == (3, 2)
    assert reach["nodes"] == [f"node{number}" for number in range(5)]
    assert (reach["digest"], reach["version"], reach["by"]) == (digest, None, "api/ops")
    assert {twice[0], refused[0], planned[0]} == {409}
    assert "it eats flash" in refused[1]
    assert await who.get(f"/bans/{digest}") == reach

    lifted = [await who("POST", f"/bans/{digest}/lift") for _ in range(2)]
    ordered = await who.does("PUT", f"/nodes/{UUID}/release", {"release": "1.0.0"})

    assert [one.status_code for one in lifted] == [204, 404]
    assert ordered["generation"] == 1
    assert (await who.get("/bans"))["items"] == []
    acts = [(row["actor"], row["act"]) for row in plane.rows("audit")]
    assert ("api/ops", "release.banned") in acts
    assert ("api/ops", "release.unbanned") in acts


async def test_a_release_is_banned_by_its_version_and_lifted_by_its_commit(plane: Plane) -> None:
    who = await begun(plane)

    made = await who.does("POST", "/bans", {"what": "2.0.0", "reason": "it eats flash"})
    lifted = await who("POST", f"/bans/{made['digest']}/lift", json={"reason": "it was the fan"})

    assert made["version"] == "2.0.0"
    assert made["digest"] == (await who.get("/releases/2.0.0"))["release"]
    assert lifted.status_code == 204


@pytest.mark.parametrize("what", ["sha256:12", "sha256:" + "A" * 64, "nowhere", "sha256:", "a b"])
async def test_what_is_neither_a_release_nor_a_digest_is_not_banned(
    plane: Plane, what: str
) -> None:
    who = await begun(plane)

    answer = await who("POST", "/bans", json={"what": what, "reason": "x"})

    assert answer.status_code in {404, 409, 422}
    assert plane.rows("ban") == []
