"""What happened is written down for webhooks with it, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudly.store import node_standing, outbox
from cloudly.store.sql import Connection
from tests.cloudly.given import Plane

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


def hook(plane: Plane, name: str, *kinds: str, disabled: bool = False) -> int:
    def make(db: Connection) -> int:
        row = db.execute(
            "INSERT INTO webhook(name, url, kinds, created_at_ms, disabled_at_ms, disabled_why)"
            " VALUES(?,'https://there.example/hook',?,1,?,'') RETURNING id",
            (name, json.dumps(kinds), 2 if disabled else None),
        ).fetchone()
        return int(row[0])

    return plane.store.write_now(make)


def told(plane: Plane) -> list[tuple[str, dict[str, Any]]]:
    """What is on its way to a webhook."""
    on_their_way = {row["event"] for row in plane.rows("delivery")}
    rows = sorted(plane.rows("outbox"), key=lambda row: int(row["id"]))
    return [(row["kind"], json.loads(row["data"])) for row in rows if row["id"] in on_their_way]


def kinds(plane: Plane) -> list[str]:
    return [kind for kind, _ in told(plane)]


async def test_without_a_webhook_nothing_is_written(plane: Plane) -> None:
    await plane.device().enroll()

    assert plane.rows("outbox") == []


async def test_an_enrollment_and_a_revocation_are_told_once_each(plane: Plane) -> None:
    hook(plane, "all")
    device, token = plane.device(), plane.join_token()
    await device.ask(token)
    await device.ask(token)  # its answer was lost: the same enrollment

    number = plane.node()["id"]
    plane.store.write_now(lambda db: node_standing.revoke(db, number, 5))

    assert kinds(plane) == ["node.enrolled", "node.revoked"]
    _, enrolled = told(plane)[0]
    assert enrolled["node"] == device.node_id
    assert (enrolled["hostname"], enrolled["fleet"], enrolled["generation"]) == (
        "kiosk-1",
        "default",
        1,
    )


async def test_each_webhook_gets_what_it_asked_for(plane: Plane) -> None:
    everything, updates = hook(plane, "everything"), hook(plane, "updates", "deployment.*")
    off = hook(plane, "off", disabled=True)
    device = await plane.device().enroll()
    deployment = plane.release("1.0.0")
    await device.tell("app-update/1", "offered", "succeeded", deployment=deployment)

    sent = [(row["webhook"], row["event"]) for row in plane.rows("delivery")]
    assert sorted(sent) == [(everything, 1), (everything, 2), (updates, 2)]
    assert all(row["webhook"] != off for row in plane.rows("delivery"))
    assert kinds(plane) == ["node.enrolled", "deployment.succeeded"]


async def test_a_deployment_is_told_with_its_release_and_the_reason(plane: Plane) -> None:
    hook(plane, "all", "deployment.*", "node.needs_operator")
    device = await plane.device().enroll()
    deployment = plane.release("1.0.0")
    await device.tell(
        "app-update/1", "offered", "rollback-needed", deployment=deployment, reason="it crashed"
    )

    kind, data = next(one for one in told(plane) if one[0].startswith("deployment."))
    assert kind == "deployment.rollback_needed"
    assert (data["version"], data["reason"], data["deployment"]) == (
        "1.0.0",
        "it crashed",
        deployment,
    )
    assert "node.needs_operator" in kinds(plane)  # there is nothing to go back to


async def test_a_rollback_that_the_same_attempt_carries_out_ends_both_deployments(
    plane: Plane,
) -> None:
    hook(plane, "all", "deployment.*")
    device = await plane.device().enroll()
    first = plane.release("1.0.0")
    await device.tell("app-update/1", "succeeded", deployment=first)
    bad = plane.release("2.0.0")
    await device.tell("app-update/2", "rollback-needed", "rolled-back", deployment=bad)

    assert [(kind, data["version"]) for kind, data in told(plane)] == [
        ("deployment.succeeded", "1.0.0"),
        ("deployment.rollback_needed", "2.0.0"),
        ("deployment.rolled_back", "2.0.0"),
        ("deployment.succeeded", "1.0.0"),
    ]


async def test_a_fact_that_comes_again_tells_nothing_again(plane: Plane) -> None:
    hook(plane, "all", "deployment.*")
    device = await plane.device().enroll()
    await device.tell("app-update/1", "succeeded", deployment=plane.release("1.0.0"))

    answer = await device.ship()

    assert answer.status_code == 200
    assert kinds(plane) == ["deployment.succeeded"]


async def test_a_batch_that_is_refused_tells_nothing(plane: Plane) -> None:
    hook(plane, "all", "deployment.*")
    device = await plane.device().enroll()
    device.fact("app-update/1", "new", "succeeded", deployment=plane.release("1.0.0"))
    forged = device.batch()
    forged["prev_hash"] = "00" * 32

    answer = await device.ship(forged)

    assert answer.status_code in {409, 422}
    assert kinds(plane) == []


async def test_what_is_undone_was_not_told(plane: Plane) -> None:
    hook(plane, "all")

    def work(db: Connection) -> None:
        outbox.tell(db, "node.revoked", {"node": "n"}, 1)
        raise ValueError("it failed later")

    with pytest.raises(ValueError, match="failed later"):
        plane.store.write_now(work)

    assert plane.rows("outbox") == []


async def test_two_devices_with_one_identity_are_told_once(plane: Plane) -> None:
    hook(plane, "all", "node.fence_alarm")
    device = await plane.device(writer="w1").enroll()
    await device.beat()
    other = device.copy("w2")
    await other.beat()
    for _ in range(4):
        await device.beat()

    assert [row["alarm"] for row in plane.rows("fence")] == [1]
    assert kinds(plane) == ["node.fence_alarm"]


async def test_nothing_that_looks_like_a_credential_leaves_with_an_event(plane: Plane) -> None:
    hook(plane, "all")
    device = await plane.device().enroll()
    data = {
        "reason": f"refused: {device.token} as Bearer {device.secret}",
        "node_token": device.token,
        "deep": [{"password": device.secret}],
        "long": "x" * 5000,
        "odd": float("nan"),
    }

    plane.store.write_now(lambda db: outbox.tell(db, "node.odd", data, 1))

    text = plane.rows("outbox")[-1]["data"]
    assert device.token not in text
    assert device.secret not in text
    assert len(text) < 2000
    assert json.loads(text, parse_constant=pytest.fail)["odd"] is None


@pytest.mark.parametrize(
    ("patterns", "kind", "wanted"),
    [
        ([], "node.revoked", True),
        (["*"], "node.revoked", True),
        (["node.*"], "node.revoked", True),
        (["node.revoked"], "node.revoked", True),
        (["node.*"], "nodes.revoked", False),
        (["deployment.*"], "node.revoked", False),
        (["node.revoked"], "node.revoked.twice", False),
    ],
)
def test_a_pattern_means_what_it_says(patterns: list[str], kind: str, *, wanted: bool) -> None:
    assert outbox.wants(patterns, kind) is wanted
    assert all(outbox.PATTERN.fullmatch(one) for one in patterns)


@pytest.mark.parametrize("odd", ["", "node", ".x", "Node.*", "a.b.*.c", "*.*", "node.", "a" * 60])
def test_what_is_no_pattern_is_known(odd: str) -> None:
    assert outbox.PATTERN.fullmatch(odd) is None
