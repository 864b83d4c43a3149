"""Channels by the admin API: who may propose, who says yes, what binds a fleet; and that two names are two persons."""

from __future__ import annotations

from typing import Any

import pytest

from cloudly.access import Role
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.compose_files import image
from tests.cloudly.given import Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

HERE = "/channels/stable/releases"


async def begun(plane: Plane, *versions: str, **policy: Any) -> Operator:
    """An operator, and the channel `stable` with releases that are proposed in it."""
    who = operator(plane, Role.OPERATOR, "ops")
    await who.does("POST", "/channels", {"name": "stable"} | policy)
    for version in versions:
        await who.release(version, image=image(version))
        await who.does("POST", HERE, {"release": version, "note": f"notes of {version}"})
    return who


async def test_what_is_proposed_is_published_at_once_where_nobody_need_agree(plane: Plane) -> None:
    who = await begun(plane, "1.0.0", "2.0.0")

    shown = await who.get("/channels/stable")
    entries = (await who.get(HERE))["items"]

    assert (shown["published"], shown["waiting"], shown["offers_version"]) == (2, 0, "2.0.0")
    assert [(one["seq"], one["version"], one["state"]) for one in entries] == [
        (2, "2.0.0", "published"),
        (1, "1.0.0", "published"),
    ]
    assert entries[0]["note"] == "notes of 2.0.0"
    assert await who.get(f"{HERE}/2.0.0") == entries[0]


async def test_a_second_person_is_another_token_and_not_another_spelling_or_life_of_one(
    plane: Plane,
) -> None:
    await begun(plane, "1.0.0", second_person=True)
    admin = operator(plane, Role.ADMIN, "root")

    # the very name again, made anew with the role that may say yes
    await admin.does("POST", "/api-tokens/ops/revoke")
    again = operator(plane, Role.APPROVER, "ops")
    same = await again.does("POST", f"{HERE}/1.0.0/approve")
    shouted = await operator(plane, Role.APPROVER, "OPS").does("POST", f"{HERE}/1.0.0/approve")
    other = await operator(plane, Role.APPROVER, "boss").does("POST", f"{HERE}/1.0.0/approve")

    assert [one["state"] for one in (same, shouted, other)] == ["proposed", "proposed", "published"]
    assert [one["who"] for one in other["said"]] == [
        "api/ops",
        "api/boss",
    ]  # two persons, not three
    assert "other than who proposed it" in same["missing"]


async def test_one_person_counts_once_however_often_and_by_however_many_tokens_of_that_name(
    plane: Plane,
) -> None:
    await begun(plane, "1.0.0", approvals=2)
    admin, boss = operator(plane, Role.ADMIN, "root"), operator(plane, Role.APPROVER, "boss")

    first = await boss.does("POST", f"{HERE}/1.0.0/approve")
    await admin.does("POST", "/api-tokens/boss/revoke")
    twice = await operator(plane, Role.APPROVER, "Boss").does("POST", f"{HERE}/1.0.0/approve")
    second = await admin.does("POST", f"{HERE}/1.0.0/approve")

    assert [one["state"] for one in (first, twice, second)] == ["proposed", "proposed", "published"]


async def test_an_operator_approves_nothing_and_an_approver_orders_nothing(plane: Plane) -> None:
    who = await begun(plane, "1.0.0", approvals=1)
    boss = operator(plane, Role.APPROVER, "boss")

    by_operator = [
        await who("POST", f"{HERE}/1.0.0/{word}", json={"note": "x"})
        for word in ("approve", "refuse", "take-back")
    ]
    by_operator.append(await who("PUT", "/channels/stable/policy", json={"approvals": 0}))
    by_operator.append(await who("DELETE", "/fleets/default/channel"))
    by_approver = [
        await boss("POST", HERE, json={"release": "1.0.0"}),
        await boss("POST", f"{HERE}/1.0.0/publish"),
        await boss("POST", f"{HERE}/1.0.0/withdraw", json={"reason": "x"}),
        await boss("PUT", f"{HERE}/1.0.0/floor", json={"floor": True}),
    ]

    assert {code_of(one) for one in by_operator + by_approver} == {(403, "not-allowed")}


async def test_a_refusal_blocks_until_it_is_taken_back_and_needs_a_note(plane: Plane) -> None:
    await begun(plane, "1.0.0", approvals=1)
    boss, cleo = (operator(plane, Role.APPROVER, name) for name in ("boss", "cleo"))

    silent = await cleo.errs("POST", f"{HERE}/1.0.0/refuse", {"note": " "})
    refused = await cleo.does("POST", f"{HERE}/1.0.0/refuse", {"note": "eats flash"})
    blocked = await boss.does("POST", f"{HERE}/1.0.0/approve")
    nothing = await operator(plane, Role.APPROVER, "dan").errs("POST", f"{HERE}/1.0.0/take-back")
    back = await cleo.does("POST", f"{HERE}/1.0.0/take-back")

    assert silent == (422, "body.note: say why: whoever meets it will ask")
    assert (refused["state"], blocked["state"], back["state"]) == (
        "refused",
        "refused",
        "published",
    )
    assert "refused by api/cleo" in blocked["missing"]
    assert nothing[0] == 409
    assert "has said nothing" in nothing[1]


async def test_a_word_whose_answer_was_lost_is_said_again_and_changes_nothing(plane: Plane) -> None:
    await begun(plane, "1.0.0", "2.0.0", approvals=1)
    boss, other = operator(plane, Role.APPROVER, "boss"), operator(plane, Role.APPROVER, "cleo")

    first = await boss.does("POST", f"{HERE}/1.0.0/approve", {"note": "fine"})
    acts = len(plane.rows("audit"))
    again = await boss.does("POST", f"{HERE}/1.0.0/approve", {"note": "fine"})
    late = await other.errs("POST", f"{HERE}/1.0.0/approve")
    no = await boss.does("POST", f"{HERE}/2.0.0/refuse", {"note": "no"})
    no_again = await boss.does("POST", f"{HERE}/2.0.0/refuse", {"note": "no"})

    assert (first["state"], again, no_again) == ("published", first, no)
    assert late[0] == 409
    assert "is published there" in late[1]
    assert len(plane.rows("audit")) == acts + 1  # the one refusal


async def test_a_withdrawn_release_is_out_for_good(plane: Plane) -> None:
    who = await begun(plane, "1.0.0", "2.0.0")
    boss = operator(plane, Role.APPROVER, "boss")

    gone = await who.does("POST", f"{HERE}/2.0.0/withdraw", {"reason": "it eats flash"})
    twice = await who.errs("POST", f"{HERE}/2.0.0/withdraw", {"reason": "again"})
    again = await who.errs("POST", HERE, {"release": "2.0.0"})
    yes = await boss.errs("POST", f"{HERE}/2.0.0/approve")

    assert (gone["state"], gone["withdrawn_by"], gone["withdrawn_why"]) == (
        "withdrawn", "api/ops", "it eats flash",
    )  # fmt: skip
    assert {twice[0], again[0], yes[0]} == {409}
    assert "final" in again[1]
    assert (await who.get("/channels/stable"))["offers_version"] == "1.0.0"


async def test_another_policy_counts_for_what_is_not_published_and_publishes_nothing_itself(
    plane: Plane,
) -> None:
    who = await begun(plane, "1.0.0", approvals=2)
    admin, boss = operator(plane, Role.ADMIN, "root"), operator(plane, Role.APPROVER, "boss")
    await boss.does("POST", f"{HERE}/1.0.0/approve")

    early = await who.errs("POST", f"{HERE}/1.0.0/publish")
    for _ in range(2):
        changed = await admin.does("PUT", "/channels/stable/policy", {"second_person": True})
    waits = await who.get(f"{HERE}/1.0.0")
    published = await who.does("POST", f"{HERE}/1.0.0/publish")
    odd = await admin.errs(
        "PUT", "/channels/stable/policy", {"second_person": True, "approvals": 0}
    )

    assert early[0] == 409
    assert (changed["approvals"], changed["second_person"]) == (1, True)
    assert (waits["state"], waits["missing"]) == ("proposed", "")
    assert published["state"] == "published"
    assert odd[0] == 422
    acts = [row["act"] for row in plane.rows("audit")]
    assert acts.count("channel.policy_set") == 1


async def test_a_fleet_follows_a_channel_and_its_new_nodes_get_what_that_offers(
    plane: Plane,
) -> None:
    who = await begun(plane, "1.0.0")
    admin = operator(plane, Role.ADMIN, "root")

    for _ in range(2):
        await admin.does("PUT", "/fleets/default/channel", {"channel": "stable"})
    device = await plane.device().enroll()
    told = (await device.beat()).json()["desired"]["app"]
    fleet = await who.get("/fleets/default")
    left = [await admin("DELETE", "/fleets/default/channel") for _ in range(2)]

    assert told["version"] == "1.0.0"
    assert (fleet["channel"], fleet["wanted_version"]) == ("stable", "1.0.0")
    assert (await who.get("/fleets"))["items"][0]["wanted_version"] == "1.0.0"
    assert [one.status_code for one in left] == [204, 409]
    kept = await who.get("/fleets/default")
    assert (kept["channel"], kept["wanted_version"]) == (None, "1.0.0")
    acts = [row["act"] for row in plane.rows("audit")]
    assert (acts.count("fleet.followed"), acts.count("fleet.unfollowed")) == (1, 1)


async def test_a_channel_that_holds_somebody_back_is_not_removed(plane: Plane) -> None:
    who = await begun(plane, "1.0.0")
    admin = operator(plane, Role.ADMIN, "root")
    await admin.does("PUT", "/fleets/default/channel", {"channel": "stable"})
    for _ in range(2):
        floor = await who.does("PUT", f"{HERE}/1.0.0/floor", {"floor": True})

    followed = await who.errs("DELETE", "/channels/stable")
    await admin.does("DELETE", "/fleets/default/channel")
    floored = await who.errs("DELETE", "/channels/stable")
    await who.does("PUT", f"{HERE}/1.0.0/floor", {"floor": False})
    gone = [await who("DELETE", "/channels/stable") for _ in range(2)]

    assert floor["is_floor"] is True
    assert followed == (409, "the channel stable is followed by default: end that first")
    assert floored[0] == 409
    assert "1 floors" in floored[1]
    assert [one.status_code for one in gone] == [204, 404]
    assert [plane.rows(table) for table in ("channel", "channel_release", "approval")] == [[]] * 3
    assert (await who.get("/channels"))["items"] == []
    assert "channel.removed" in [row["act"] for row in plane.rows("audit")]


async def test_what_is_not_there_is_not_found(plane: Plane) -> None:
    who = await begun(plane)
    await who.release("1.0.0")
    boss = operator(plane, Role.APPROVER, "boss")

    answers = [
        await who("GET", "/channels/nowhere"),
        await who("GET", "/channels/nowhere/releases"),
        await who("POST", "/channels/nowhere/releases", json={"release": "1.0.0"}),
        await who("POST", HERE, json={"release": "9.9.9"}),
        await boss("POST", f"{HERE}/1.0.0/approve"),
        await who("GET", f"{HERE}/1.0.0"),
    ]
    twice = await who.errs("POST", "/channels", {"name": "stable"})

    assert {code_of(one) for one in answers} == {(404, "not-found")}
    assert twice[0] == 409
