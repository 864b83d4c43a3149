"""Deployments: what nodes report moves them, once, and a rollback turns the target back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudly.cli.release import apply as set_release
from cloudly.deployments import ENDS, Deployment, Effect, fold
from cloudly.problems import BadOrder
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy
from interfaces.world import new_secret
from tests.cloudly.given import DIGEST, UUID, Device, Plane, commit_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


async def wanted(device: Device) -> dict[str, Any]:
    app: dict[str, Any] = (await device.beat()).json()["desired"]["app"]
    return app


async def on_a_good_release(plane: Plane) -> Device:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell(
        "app-update/1", "offered", "staged", "applying", "succeeded", deployment=first
    )
    return device


async def test_success_makes_a_release_the_last_good_one(plane: Plane) -> None:
    device = await on_a_good_release(plane)

    assert plane.node()["last_good"] == "1.0.0"
    assert plane.rows("deployment")[0]["state"] == "succeeded"
    assert (await wanted(device))["version"] == "1.0.0"


async def test_a_needed_rollback_turns_the_target_back_as_a_new_generation(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)

    await device.tell(
        "app-update/2", "applying", "rollback-needed", deployment=bad, reason="it crashed"
    )
    answer = (await device.beat()).json()["desired"]

    assert answer["generation"] == 3
    assert answer["app"]["version"] == "1.0.0"
    assert answer["app"]["rollback_of"] == bad
    assert answer["app"]["deployment"] not in {bad, plane.rows("deployment")[0]["deployment"]}
    refused = plane.rows("never_again")[0]
    assert (refused["deployment"], refused["reason"]) == (bad, "it crashed")


async def test_the_attempt_that_needed_the_rollback_carries_it_out_and_closes_both(
    plane: Plane,
) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "applying", "rollback-needed", deployment=bad)
    back = (await wanted(device))["deployment"]

    await device.tell("app-update/2", "rolling-back", "rolled-back")

    assert plane.deployment(bad)["state"] == "rolled-back"
    assert plane.deployment(back)["state"] == "succeeded"
    assert plane.node()["last_good"] == "1.0.0"
    assert (await wanted(device))["deployment"] == back


async def test_a_rollback_that_is_an_attempt_of_its_own_closes_both_too(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "applying", "rollback-needed", deployment=bad)
    back = (await wanted(device))["deployment"]

    await device.tell("app-update/3", "applying", "succeeded", deployment=back)

    assert (plane.deployment(bad)["state"], plane.deployment(back)["state"]) == (
        "rolled-back",
        "succeeded",
    )


async def test_a_rollback_that_fails_asks_for_the_operator(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "applying", "rollback-needed", deployment=bad)

    await device.tell("app-update/2", "rolling-back", "failed", reason="no space")

    assert "rollback failed" in plane.node()["needs_operator"]
    assert plane.rows("deployment")[2]["state"] == "failed"


async def test_an_update_given_up_before_it_was_applied_turns_the_target_back_without_a_ban(
    plane: Plane,
) -> None:
    device = await on_a_good_release(plane)
    given_up = plane.release("2.0.0", UUID)

    await device.tell(
        "app-update/2", "downloading", "failed", deployment=given_up, reason="no network"
    )

    target = await wanted(device)
    assert target["version"] == "1.0.0"
    assert target["rollback_of"] is None
    assert plane.deployment(given_up)["state"] == "failed"
    assert plane.rows("never_again") == []


async def test_a_first_release_given_up_is_withdrawn_and_the_operator_is_asked(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    given_up = plane.release("1.0.0", UUID)

    await device.tell("app-update/1", "downloading", "failed", deployment=given_up, reason="no net")

    assert (await device.beat()).json()["desired"] == {"generation": 2, "app": None}
    assert "no net" in plane.node()["needs_operator"]


async def test_a_withdrawn_release_can_be_ordered_again(plane: Plane) -> None:
    device = await plane.device().enroll()
    given_up = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "downloading", "failed", deployment=given_up)

    again = plane.release("1.0.0", UUID)

    answer = (await device.beat()).json()["desired"]
    assert (answer["generation"], answer["app"]["deployment"]) == (3, again)
    assert plane.node()["needs_operator"] is None


async def test_a_good_release_that_is_ordered_once_more_and_given_up_is_not_withdrawn(
    plane: Plane,
) -> None:
    device = await on_a_good_release(plane)
    again = plane.release("1.0.0", UUID, again=True)

    await device.tell("app-update/2", "downloading", "failed", deployment=again)

    assert (await wanted(device))["deployment"] == again
    assert "given up" in plane.node()["needs_operator"]


async def test_the_same_report_again_turns_nothing_back_twice(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "applying", "rollback-needed", deployment=bad)

    await device.ship()
    await device.tell("app-update/3", "rollback-needed", deployment=bad)

    assert plane.node()["generation"] == 3
    assert len(plane.rows("deployment")) == 3


async def test_without_a_last_good_release_the_target_stays_and_the_operator_is_asked(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)

    await device.tell("app-update/1", "applying", "rollback-needed", deployment=first)

    assert (await wanted(device))["deployment"] == first
    assert "no last good release" in plane.node()["needs_operator"]
    assert len(plane.rows("never_again")) == 1


async def test_an_order_of_the_operator_answers_the_call_for_him(plane: Plane) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "applying", "rollback-needed", deployment=first)

    plane.release("1.0.1", UUID)

    assert plane.node()["needs_operator"] is None
    assert (await wanted(device))["version"] == "1.0.1"


async def test_a_good_release_that_goes_bad_is_not_turned_back_to_itself(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    again = plane.release("1.0.0", UUID, again=True)

    await device.tell("app-update/2", "applying", "rollback-needed", deployment=again)

    assert (await wanted(device))["deployment"] == again
    assert plane.node()["needs_operator"]


async def test_a_late_report_never_overwrites_an_end(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    first = plane.rows("deployment")[0]["deployment"]

    await device.tell(
        "app-update/1", "failed", "rollback-needed", "superseded", "applying", deployment=first
    )

    assert plane.deployment(first)["state"] == "succeeded"
    assert plane.rows("never_again") == []
    assert plane.node()["generation"] == 1


async def test_success_after_a_needed_rollback_is_no_success(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "rollback-needed", "succeeded", deployment=bad)

    assert plane.deployment(bad)["state"] == "rollback-needed"
    assert plane.node()["last_good"] == "1.0.0"


async def test_an_operator_who_wants_something_else_by_now_is_not_overruled(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    plane.release("3.0.0", UUID)

    await device.tell("app-update/2", "applying", "rollback-needed", deployment=bad)

    assert (await wanted(device))["version"] == "3.0.0"
    assert len(plane.rows("never_again")) == 1


async def test_a_node_cannot_move_the_deployment_of_another(plane: Plane) -> None:
    await on_a_good_release(plane)
    other = await plane.device("other").enroll()
    bad = plane.release("2.0.0", UUID)

    await other.tell("app-update/1", "rollback-needed", deployment=bad)

    assert plane.deployment(bad)["state"] == "ordered"
    assert plane.rows("never_again") == []


async def test_only_streams_of_app_update_move_deployments(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    second = plane.release("2.0.0", UUID)

    await device.tell("host-update/1", "succeeded", deployment=second)

    assert plane.deployment(second)["state"] == "ordered"


async def test_facts_without_the_deployment_belong_to_the_one_their_stream_named_first(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    device.fact("app-update/1", "new", "offered", deployment=first)
    await device.ship()
    device.fact("app-update/1", "offered", "succeeded")
    await device.ship(device.batch(2))

    assert plane.deployment(first)["state"] == "succeeded"


async def test_a_release_that_needed_a_rollback_is_refused_until_the_operator_insists(
    plane: Plane,
) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "rollback-needed", deployment=bad, reason="it crashed")

    with pytest.raises(BadOrder, match=r"it crashed.*--again"):
        plane.release("2.0.0", UUID)
    assert (await wanted(device))["version"] == "1.0.0"

    again = plane.release("2.0.0", UUID, again=True)
    assert (await wanted(device))["deployment"] == again
    assert plane.rows("never_again") == []


async def test_an_order_for_all_passes_by_the_node_that_must_not_have_it(plane: Plane) -> None:
    device = await on_a_good_release(plane)
    bad = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "rollback-needed", deployment=bad)
    other = await plane.device("other").enroll()

    plane.release("2.0.0")

    assert (await wanted(device))["version"] == "1.0.0"
    assert (await wanted(other))["version"] == "2.0.0"


async def test_a_reflashed_node_is_not_given_what_it_must_never_run(plane: Plane) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "rollback-needed", deployment=first)

    after = plane.device(epoch="epoch-2")
    after.secret = new_secret(plane.world)
    await after.ask(plane.join_token())

    assert (await wanted(after))["deployment"] == first
    assert plane.node()["needs_operator"]


async def test_a_release_never_changes(plane: Plane) -> None:
    await plane.device().enroll()
    plane.release("1.0.0", UUID)

    from cloudly.store.wanted import define_release

    changed = NewRelease(commit_of("1.0.0"), "1.0.0", {"main": "other@sha256:" + "0" * 64}, {})
    with pytest.raises(BadOrder, match="never changes"):
        plane.store.write_now(lambda db: define_release(db, changed, 1))


@pytest.mark.parametrize(
    ("images", "version", "says"),
    [
        ({"main": "r.example/" + "a" * 450 + "@" + DIGEST}, "2.0.0", "images.0.image"),
        ({"s" * 201: "r.example/a@" + DIGEST}, "2.0.0", "images.0.service"),
        ({f"s{n}": "r.example/a@" + DIGEST for n in range(101)}, "2.0.0", "images"),
        ({"main": "r.example/a@" + DIGEST}, "v" * 201, "version"),
    ],
)
@pytest.mark.parametrize("node", [UUID, None])
async def test_a_release_that_cannot_be_told_to_a_node_is_refused_and_nothing_is_changed(
    plane: Plane, images: dict[str, str], version: str, says: str, node: str | None
) -> None:
    device = await on_a_good_release(plane)
    new = NewRelease("poison", version, images, {})

    with pytest.raises(BadOrder, match=rf"told to a node: {says}: [^\n]+$"):
        plane.store.write_now(lambda db: set_release(db, new, UpdatePolicy(), node, again=False))

    assert (await wanted(device))["version"] == "1.0.0"
    assert [row["version"] for row in plane.rows("release")] == ["1.0.0"]
    assert [row["release"] for row in plane.rows("fleet")] == [None]


async def test_the_order_that_a_node_has_already_changes_nothing(plane: Plane) -> None:
    await plane.device().enroll()
    plane.release("1.0.0", UUID)

    assert plane.release("1.0.0", UUID) is None
    assert plane.node()["generation"] == 1


STATES = st.sampled_from(["offered", "applying", "rolling-back", "rollback-needed", *sorted(ENDS)])


@given(st.lists(STATES, max_size=12))
def test_whatever_is_reported_an_end_is_final_and_each_effect_happens_once(
    reached: list[str],
) -> None:
    deployment = Deployment("d", 1, "ordered", needs_rollback=False, closed=False)
    effects: list[Effect] = []

    for state in reached:
        before = deployment
        deployment, effect = fold(deployment, state)
        effects.append(effect)
        assert not before.closed or (deployment == before and effect is Effect.NONE)

    assert effects.count(Effect.TURN_BACK) <= 1
    assert effects.count(Effect.GOOD) <= 1
    assert not (Effect.TURN_BACK in effects and Effect.GOOD in effects)
    assert deployment.closed == (deployment.state in ENDS)
