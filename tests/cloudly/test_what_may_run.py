"""Pins, floors, bans and the channel of a fleet: what a node may be given, and what never holds it back."""

from __future__ import annotations

from typing import Any

import pytest

from cloudly.problems import BadOrder
from cloudly.rollouts.admission import Standing
from tests.cloudly.given import UUID, Device, Plane
from tests.cloudly.governing import DAY_MS, Operator, digest_of, runs, wanted_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"


@pytest.fixture
def anna(plane: Plane) -> Operator:
    anna = Operator(plane)
    anna.defines("1.0.0", "1.1.0", "1.2.0", "2.0.0")
    return anna


@pytest.fixture
async def device(plane: Plane) -> Device:
    return await plane.device().enroll()


async def test_where_nothing_was_decided_nothing_speaks_against_a_release(
    anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")

    assert anna.standing("1.1.0") == Standing()
    assert anna.standing("1.0.0") == Standing(has_it=True)


# -- pins


async def test_a_pin_holds_a_node_to_a_release_until_it_is_lifted(
    anna: Operator, device: Device
) -> None:
    anna.pins("1.0.0")

    with pytest.raises(BadOrder, match=rf"to 1.0.0 by anna \(black.*cloudly unpin node {UUID}"):
        anna.orders("1.1.0")
    anna.orders("1.0.0")
    anna.unpins()
    anna.orders("1.1.0")

    assert await wanted_of(device) == "1.1.0"
    ordered = "node.release_set"
    acts = [act for _, act, _ in anna.audited()]
    assert acts == ["node.pinned", ordered, "node.unpinned", ordered]


async def test_a_pin_without_a_release_holds_what_runs_and_nothing_before_that(
    anna: Operator, device: Device
) -> None:
    anna.pins()
    await runs(device, anna, "1.0.0")

    with pytest.raises(BadOrder, match="it is pinned to what it runs"):
        anna.orders("1.1.0")

    assert anna.standing("1.0.0").pinned == ""


async def test_a_pin_ends_by_itself(plane: Plane, anna: Operator, device: Device) -> None:
    await runs(device, anna, "1.0.0")
    anna.pins(until_ms=DAY_MS)
    before = anna.standing("1.1.0").pinned

    await plane.world.sleep(DAY_MS / 1000)

    assert ", until " in before
    assert anna.standing("1.1.0") == Standing()


async def test_the_pin_of_a_node_wins_over_that_of_its_fleet(
    anna: Operator, device: Device
) -> None:
    anna.pins("1.0.0", fleet="default")
    of_fleet = anna.standing("1.1.0").pinned

    anna.pins("1.1.0")

    assert of_fleet.startswith("to 1.0.0 with its fleet default by anna (black friday)")
    assert anna.standing("1.1.0").pinned == ""
    assert anna.standing("1.0.0").pinned.startswith("to 1.1.0 by anna")
    anna.unpins()
    assert anna.standing("1.0.0").pinned == ""
    assert await wanted_of(device) is None  # a pin orders nothing


async def test_a_new_node_of_a_pinned_fleet_gets_what_that_is_pinned_to(
    plane: Plane, anna: Operator
) -> None:
    anna.makes_fleet("shops")
    anna.wants("shops", "1.1.0")
    anna.pins("1.0.0", fleet="shops")
    device = plane.device()

    await anna.lets_in(device, "shops")

    assert await wanted_of(device) == "1.0.0"


async def test_a_frozen_fleet_gives_its_new_nodes_what_it_wants(
    plane: Plane, anna: Operator
) -> None:
    anna.makes_fleet("shops")
    anna.wants("shops", "1.0.0")
    anna.pins(fleet="shops")
    device = plane.device()

    await anna.lets_in(device, "shops")

    assert await wanted_of(device) == "1.0.0"


async def test_a_pinned_fleet_is_given_no_other_default(anna: Operator) -> None:
    anna.pins("1.0.0", fleet="default")

    with pytest.raises(BadOrder, match=r"fleet default is pinned to 1.0.0 by anna"):
        anna.wants("default", "1.1.0")

    assert anna.wants("default", "1.0.0") == []


async def test_bad_pins_are_refused_with_the_reason(anna: Operator, device: Device) -> None:  # noqa: ARG001 - it is there
    anna.bans("2.0.0")

    with pytest.raises(BadOrder, match="say why, with --reason"):
        anna.pins("1.0.0", why="")
    with pytest.raises(BadOrder, match="is banned by anna"):
        anna.pins("2.0.0")
    with pytest.raises(BadOrder, match="it would end before it begins"):
        anna.pins("1.0.0", until_ms=0)
    with pytest.raises(BadOrder, match="is not pinned"):
        anna.unpins()
    with pytest.raises(BadOrder, match="fleet default is not pinned"):
        anna.unpins(fleet="default")


async def test_the_pin_of_a_removed_fleet_is_not_that_of_the_next(anna: Operator) -> None:
    from cloudly.store import fleets

    anna.makes_fleet("shops")
    anna.pins("1.0.0", fleet="shops")
    anna.do(lambda db: fleets.remove(db, fleets.find(db, "shops"), by=anna.by))
    anna.makes_fleet("labs")

    anna.wants("labs", "1.1.0")

    assert anna.plane.rows("pin") == []


# -- moves


async def test_a_node_with_a_pin_of_its_own_is_moved_and_keeps_what_it_has(
    anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    anna.makes_fleet("shops")
    anna.wants("shops", "1.1.0")
    anna.pins("1.0.0")

    moved = anna.moves("shops")

    assert anna.plane.node()["fleet"] == "shops"
    assert moved.generation is None
    assert moved.why.startswith("it keeps what it has: it is pinned to 1.0.0 by anna")
    assert await wanted_of(device) == "1.0.0"


async def test_a_move_to_what_the_node_may_not_have_is_refused_and_nothing_moves(
    anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    anna.makes_fleet("shops")
    anna.wants("shops", "1.1.0")
    anna.bans("1.1.0")

    with pytest.raises(BadOrder, match="is banned"):
        anna.moves("shops")

    assert anna.plane.node()["fleet"] == "default"


# -- the channel of a fleet


async def test_new_nodes_of_a_fleet_get_what_its_channel_offers_and_old_ones_change_by_orders(
    plane: Plane, anna: Operator
) -> None:
    first, second = plane.device(), plane.device(OTHER)
    anna.makes_fleet("shops")
    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.follows("shops", "stable")
    await anna.lets_in(first, "shops")

    anna.proposes("1.1.0")
    await anna.lets_in(second, "shops")

    assert (await wanted_of(first), await wanted_of(second)) == ("1.0.0", "1.1.0")
    anna.orders("1.1.0")
    assert await wanted_of(first) == "1.1.0"


async def test_a_fleet_that_follows_a_channel_has_only_what_is_published_there(
    plane: Plane, anna: Operator
) -> None:
    device = plane.device()
    anna.makes_channel(approvals=1)
    anna.follows("default", "stable")
    await device.enroll()
    foreign = anna.standing("1.0.0").unpublished
    anna.proposes("1.0.0")
    proposed = anna.standing("1.0.0").unpublished

    with pytest.raises(BadOrder, match="not published there yet; `cloudly channel show stable`"):
        anna.orders("1.0.0")
    anna.approves("1.0.0")
    published = anna.standing("1.0.0").unpublished
    anna.withdraws("1.0.0")

    start = "its fleet follows the channel stable, and release 1.0.0 is "
    assert [foreign.split(";")[0], proposed.split(";")[0], published] == [
        start + "not in it",
        start + "not published there yet",
        "",
    ]
    assert anna.standing("1.0.0").unpublished.startswith(start + "withdrawn there")
    assert await wanted_of(device) is None


async def test_a_fleet_that_follows_has_no_default_of_its_own_and_keeps_the_offer_afterwards(
    plane: Plane, anna: Operator
) -> None:
    device = plane.device()
    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.follows("default", "stable")

    with pytest.raises(BadOrder, match="fleet default follows the channel stable"):
        anna.wants("default", "2.0.0")
    with pytest.raises(BadOrder, match="follows stable already"):
        anna.follows("default", "stable")
    anna.unfollows("default")
    with pytest.raises(BadOrder, match="follows no channel"):
        anna.unfollows("default")
    await device.enroll()

    assert await wanted_of(device) == "1.0.0"


# -- floors


@pytest.fixture
def stepped(anna: Operator) -> Operator:
    """A channel of 1.0.0, the floors 1.1.0 and 1.2.0, and 2.0.0."""
    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.proposes("1.1.0", floor=True)
    anna.proposes("1.2.0")
    anna.floors("1.2.0")
    anna.proposes("2.0.0")
    return anna


async def test_no_upgrade_skips_a_floor(stepped: Operator, device: Device) -> None:
    await runs(device, stepped, "1.0.0")

    with pytest.raises(BadOrder, match=r"must run 1.1.0 \(a floor of stable\) first"):
        stepped.orders("2.0.0")
    steps = [stepped.next_step("2.0.0")]
    for number, version in enumerate(("1.1.0", "1.2.0"), 2):
        await runs(device, stepped, version, number)
        steps.append(stepped.next_step("2.0.0"))

    assert steps == ["1.1.0", "1.2.0", "2.0.0"]
    assert stepped.standing("2.0.0") == Standing()


async def test_an_order_to_a_floor_that_has_not_succeeded_is_no_step(
    stepped: Operator, device: Device
) -> None:
    await runs(device, stepped, "1.0.0")
    stepped.orders("1.1.0")

    assert stepped.next_step("2.0.0") == "1.1.0"


async def test_a_node_that_never_ran_the_channel_begins_anywhere_and_the_way_down_is_free(
    stepped: Operator, device: Device
) -> None:
    new = stepped.next_step("2.0.0")
    await runs(device, stepped, "2.0.0")

    assert (new, stepped.next_step("1.0.0")) == ("2.0.0", "1.0.0")


async def test_a_release_from_elsewhere_does_not_hide_what_the_data_is_of(
    stepped: Operator, device: Device
) -> None:
    await runs(device, stepped, "1.0.0")
    stepped.defines("1.0.0-hotfix")
    await runs(device, stepped, "1.0.0-hotfix", 2)

    assert stepped.next_step("2.0.0") == "1.1.0"


async def test_a_floor_that_was_withdrawn_stays_one_until_it_is_turned_off(
    stepped: Operator, device: Device
) -> None:
    await runs(device, stepped, "1.0.0")
    stepped.withdraws("1.1.0")

    with pytest.raises(BadOrder, match=r"withdrawn: `cloudly channel floor stable 1.1.0 off`"):
        stepped.orders("2.0.0")
    stepped.floors("1.1.0", on=False)

    assert stepped.next_step("2.0.0") == "1.2.0"


async def test_a_floor_that_is_only_proposed_holds_nobody(anna: Operator, device: Device) -> None:
    anna.makes_channel(approvals=1)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        anna.proposes(version, floor=version == "1.1.0")
    anna.approves("1.0.0")
    anna.approves("2.0.0")
    await runs(device, anna, "1.0.0")

    assert anna.next_step("2.0.0") == "2.0.0"


async def test_the_floors_of_another_channel_are_none_of_a_fleet_that_follows_one(
    stepped: Operator, device: Device
) -> None:
    await runs(device, stepped, "1.0.0")
    stepped.makes_channel("beta")
    for version in ("1.0.0", "2.0.0"):
        stepped.proposes(version, "beta")
    of_none = stepped.next_step("2.0.0")

    stepped.follows("default", "beta")

    assert (of_none, stepped.next_step("2.0.0")) == ("1.1.0", "2.0.0")


# -- bans


@pytest.mark.parametrize("what", ["1.1.0", digest_of("1.1.0")])
async def test_what_is_banned_is_given_to_nobody(
    plane: Plane, anna: Operator, device: Device, what: str
) -> None:
    await runs(device, anna, "1.0.0")
    anna.makes_fleet("shops")
    anna.wants("shops", "1.1.0")
    reach = anna.bans(what)
    new = plane.device(OTHER)

    for order in (
        lambda: anna.orders("1.1.0"),
        lambda: anna.orders("1.1.0", again=True),
        lambda: anna.wants("shops", "1.1.0"),
    ):
        with pytest.raises(BadOrder, match=r"banned by anna \(it eats flash\).*release unban"):
            order()
    await anna.lets_in(new, "shops")

    assert (reach.running, reach.coming, reach.fleets) == (0, 0, ("shops",))
    assert await wanted_of(new) is None
    assert "was given no release: release 1.1.0" in plane.node(OTHER)["needs_operator"]
    assert anna.standing("1.1.0").banned.startswith("release 1.1.0 ")
    anna.unbans(what)
    anna.orders("1.1.0")
    assert await wanted_of(device) == "1.1.0"


async def test_a_ban_says_who_runs_it_and_who_is_about_to(
    plane: Plane, anna: Operator, device: Device
) -> None:
    other = await plane.device(OTHER).enroll()
    await runs(device, anna, "1.0.0")
    anna.orders("1.0.0", OTHER)

    reach = anna.bans(digest_of("1.0.0"))

    assert (reach.running, reach.coming, reach.nodes) == (1, 1, (UUID, OTHER))
    assert await wanted_of(other) == "1.0.0"  # what was ordered before stands


async def test_bad_bans_are_refused_with_the_reason(anna: Operator) -> None:
    anna.bans("1.0.0")

    for change, says in (
        (lambda: anna.bans("1.0.0"), "is banned already"),
        (lambda: anna.bans("9.9"), "there is no release '9.9'"),
        (lambda: anna.bans("sha256:123"), "is no digest: sha256: and 64 digits"),
        (lambda: anna.bans("2.0.0", why=" "), "say why, with --reason"),
        (lambda: anna.unbans("2.0.0"), "is not banned"),
    ):
        with pytest.raises(BadOrder, match=says):
            change()

    anna.bans(digest_of("of-a-release-that-comes-later"))


async def test_a_reflashed_node_is_not_given_again_what_was_banned_since(
    plane: Plane, anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    await runs(device, anna, "1.1.0", 2)
    anna.bans("1.1.0")

    device.begins("epoch-2")
    await device.ask(plane.join_token())

    assert await wanted_of(device) is None
    assert "it starts from nothing, and release 1.1.0 is banned" in plane.node()["needs_operator"]


async def test_a_reflashed_node_gets_its_last_good_release_in_the_place_of_a_banned_one(
    plane: Plane, anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    anna.orders("1.1.0")
    anna.bans("1.1.0")

    device.begins("epoch-2")
    await device.ask(plane.join_token())

    assert await wanted_of(device) == "1.0.0"
    assert "release 1.1.0 is banned" in plane.node()["needs_operator"]


# -- the way back


async def test_neither_pin_nor_channel_nor_floor_stands_in_the_way_back(
    anna: Operator, device: Device
) -> None:
    anna.makes_channel()
    anna.proposes("1.1.0")
    await runs(device, anna, "1.0.0")
    anna.follows("default", "stable")
    deployment = anna.orders("1.1.0")
    anna.pins("1.1.0")

    await device.tell("app-update/2", "applying", "rollback-needed", deployment=deployment)

    assert await wanted_of(device) == "1.0.0"
    assert anna.standing("1.0.0").pinned
    assert anna.standing("1.0.0").unpublished


async def test_a_node_never_goes_back_to_what_is_banned_without_an_operator(
    plane: Plane, anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    deployment = anna.orders("1.1.0")
    anna.bans("1.0.0")

    await device.tell("app-update/2", "applying", "rollback-needed", deployment=deployment)

    assert await wanted_of(device) == "1.1.0"
    asked = plane.node()["needs_operator"]
    assert asked.startswith("a rollback is needed and the last good one may not be given: release")
    assert "1.0.0 is banned by anna (it eats flash)" in asked


async def test_a_release_given_up_before_it_was_applied_leaves_a_node_what_it_runs_though_banned(
    plane: Plane, anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    deployment = anna.orders("1.1.0")
    anna.bans("1.0.0")

    await device.tell("app-update/2", "downloading", "failed", deployment=deployment)

    assert await wanted_of(device) == "1.0.0"
    assert "and what it runs is banned: release 1.0.0" in plane.node()["needs_operator"]


async def test_on_a_reflashed_node_that_runs_nothing_a_banned_one_is_not_put_back(
    plane: Plane, anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    await plane.world.sleep(60)
    device.begins("epoch-2")
    await device.ask(plane.join_token())
    deployment = anna.orders("1.1.0")
    anna.bans("1.0.0")

    await device.tell("app-update/1", "downloading", "failed", deployment=deployment)

    assert await wanted_of(device) is None
    assert "was given up" in plane.node()["needs_operator"]
    assert "release 1.0.0 is banned" in plane.node()["needs_operator"]


async def test_the_order_keeps_whose_it_was(plane: Plane, anna: Operator, device: Device) -> None:  # noqa: ARG001 - it is there
    deployment = anna.orders("1.0.0")

    assert plane.deployment(deployment)["actor"] == "anna"


async def test_the_never_again_of_a_node_is_overruled_by_again_and_a_pin_is_not(
    anna: Operator, device: Device
) -> None:
    await runs(device, anna, "1.0.0")
    deployment = anna.orders("1.1.0")
    await device.tell(
        "app-update/2", "applying", "rollback-needed", deployment=deployment, reason="it crashed"
    )
    anna.pins("1.0.0")
    told: Any = anna.standing("1.1.0")

    with pytest.raises(BadOrder, match=r"needed a rollback there before \(it crashed\)"):
        anna.orders("1.1.0")
    with pytest.raises(BadOrder, match=r"it is pinned to 1.0.0"):
        anna.orders("1.1.0", again=True)
    still = anna.standing("1.1.0").never_again
    anna.unpins()
    anna.orders("1.1.0", again=True)

    assert (told.never_again, still) == ("it crashed", "it crashed")
    assert await wanted_of(device) == "1.1.0"
