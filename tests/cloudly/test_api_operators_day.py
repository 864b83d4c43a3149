"""A whole day of an operator by the admin API: a release agreed to and rolled out, and a bad one that stops itself."""

from __future__ import annotations

from typing import Any

import pytest

from cloudly.access import Role
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.compose_files import image
from tests.cloudly.given import Plane
from tests.cloudly.rolling import Rolling

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

PLAN: dict[str, Any] = {
    "phases": [
        {"name": "canary", "count": 1, "soak_s": 1200},
        {"name": "all", "share_bp": 10_000, "soak_s": 60},
    ],
    "halt": {"most_failures": 2},
    "needs_approval": True,
    "second_person": True,
}


async def agreed(who: Operator, second: Operator, version: str, digit: str) -> None:
    """A release made and proposed by one, and said yes to by another."""
    await who.release(version, image=image(version, digit))
    proposed = await who.does("POST", "/channels/stable/releases", {"release": version})
    assert (proposed["state"], proposed["proposed_by"]) == ("proposed", "api/ops")
    assert "one more" in proposed["missing"] or "1 more person" in proposed["missing"]
    said = {"note": "three days in the lab"}
    published = await second.does("POST", f"/channels/stable/releases/{version}/approve", said)
    assert (published["state"], published["missing"]) == ("published", "")


async def planned(who: Operator, second: Operator, version: str) -> str:
    """A rollout that was created, approved and started; its address."""
    made = await who.does("POST", "/rollouts", {"release": version, "plan": PLAN})
    here = f"/rollouts/{made['rollout']}"
    assert (made["state"], made["created_by"]) == ("draft", "api/ops")
    assert len(made["warnings"]) == 1  # 60 s of soak are less than it takes to see a node go dark
    await who.does("POST", f"{here}/ask-approval")
    await second.does("POST", f"{here}/approve", {"note": "go"})
    assert (await who.does("POST", f"{here}/start"))["state"] == "deciding"
    return here


async def all_told(rolling: Rolling) -> list[str | None]:
    return [None if app is None else str(app["version"]) for app in await rolling.all_beat()]


async def test_a_release_is_agreed_to_rolled_out_and_a_bad_one_halts_and_is_rolled_back(  # noqa: PLR0915 - a whole day
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 4)
    admin = operator(plane, Role.ADMIN, "root")
    who, second = operator(plane, Role.OPERATOR, "ops"), operator(plane, Role.APPROVER, "boss")

    # the channel, and what it binds
    await who.does("POST", "/channels", {"name": "stable", "second_person": True})
    await admin.does("PUT", "/fleets/default/channel", {"channel": "stable"})
    await agreed(who, second, "2.0.0", "2")
    assert (await who.get("/fleets/default"))["wanted_version"] == "2.0.0"

    # the good one: tried, started, its canary is well
    tried = await who.does("POST", "/rollouts/dry-run", {"release": "2.0.0", "plan": PLAN})
    assert [(one["of_any_place"], one["by_place"]) for one in tried["phases"]] == [(1, 0), (0, 4)]
    good = await planned(who, second, "2.0.0")
    rolling.number = int(good.rpartition("/")[2])
    await rolling.tick()
    assert (await all_told(rolling)).count("2.0.0") == 1
    [canary] = rolling.has_it()
    await rolling.succeeds(canary)
    await rolling.tick()
    await rolling.tick()
    assert (await who.get(good))["state"] == "soaking"

    # paused: nobody more gets it, though the next phase would have begun; resumed, the soak begins again
    paused = await who.does("POST", f"{good}/pause", {"reason": "lunch"})
    await rolling.wait(1300, every_s=100)
    assert (await all_told(rolling)).count("2.0.0") == 1
    assert paused["may"] == ["resume", "halt", "roll back", "abort"]
    assert (await who.get(good))["why"]["reason"] == "api/ops: lunch"
    await who.does("POST", f"{good}/resume")
    for _ in range(10):
        await rolling.wait(140, every_s=20)
        await rolling.all_beat()

    # everybody
    assert await all_told(rolling) == ["2.0.0"] * 4
    for device in rolling.devices:
        if device is not canary:
            await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)
    await rolling.wait(61)
    done = await who.get(good)
    assert (done["state"], done["succeeded"], done["why"], done["may"]) == (
        "completed",
        4,
        None,
        [],
    )

    # the bad one halts itself
    await agreed(who, second, "3.0.0", "3")
    bad = await planned(who, second, "3.0.0")
    rolling.number = int(bad.rpartition("/")[2])
    await rolling.tick()
    await rolling.all_beat()
    [canary] = rolling.has_it()
    await rolling.succeeds(canary)
    for _ in range(10):
        await rolling.wait(140, every_s=20)
        await rolling.all_beat()
    failing = [one for one in rolling.has_it() if one is not canary][:2]
    for device in failing:
        await rolling.fails(device, "no space left")
    await rolling.tick()
    halted = await who.get(bad)
    assert halted["state"] == "halted"
    assert [(one["reason"], one["nodes"]) for one in halted["failures"]] == [("no space left", 2)]
    named = await who.get(f"{bad}/nodes", outcome="rolled_back")
    assert [one["node_id"] for one in named["items"]] == [one.node_id for one in failing]

    # and is rolled back, and never comes again
    await who.does("POST", f"{bad}/roll-back", {"reason": "it fills the disk"})
    reach = await who.does("POST", "/bans", {"what": "3.0.0", "reason": "it fills the disk"})
    assert (reach["running"], reach["channels"]) == (1, ["stable"])
    await rolling.tick()
    assert await all_told(rolling) == ["2.0.0"] * 4
    for device in rolling.devices:
        if device not in failing:
            await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)
    assert (await who.get(bad))["state"] == "rolled-back"
    assert {plane.node(one.node_id)["last_good"] for one in rolling.devices} == {"2.0.0"}
    assert (await who.get("/fleets/default"))["wanted_version"] == "2.0.0"

    # and all of it can be told afterwards, by who did it
    said = [one["says"] for one in (await who.get(f"{bad}/events", limit=500))["items"]]
    for words in (
        "api/ops created it",
        "api/boss approved it: go",
        "api/ops started it",
        "cloudly halted it",
    ):
        assert any(one.startswith(words) for one in said), words
    audited = {(row["actor"], row["act"]) for row in plane.rows("audit")}
    assert {
        ("api/ops", "channel.created"),
        ("api/root", "fleet.followed"),
        ("api/ops", "channel.proposed"),
        ("api/boss", "channel.approved"),
        ("api/boss", "channel.published"),
        ("api/ops", "release.banned"),
    } <= audited
