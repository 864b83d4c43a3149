"""Rollouts by the admin API: planned, tried, ordered and told; by whom, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudly.access import Role
from cloudly.http.api.rollouts import TRYING
from cloudly.rollouts.plan import Plan
from cloudly.service import rollouts as service
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.given import Plane, code_of
from tests.cloudly.rolling import Rolling, canary_first, plan
from tests.cloudly.test_api_paging import walk

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

QUICK: dict[str, Any] = {"phases": [{"name": "all", "share_bp": 10_000, "soak_s": 60}]}
NIGHT = {"days": ["mon"], "start": "00:00", "end": "01:00"}
CANARY = "canary-of-an-operator-5f1c"


async def begun(plane: Plane, count: int = 1) -> tuple[Rolling, Operator]:
    """Devices on 1.0.0, a release 2.0.0, and an operator."""
    rolling = await Rolling.begin(plane, count)
    rolling.define()
    return rolling, operator(plane, Role.OPERATOR, "ops")


async def created(who: Operator, **said: Any) -> str:
    """A draft of 2.0.0; its address."""
    made = await who.does("POST", "/rollouts", {"release": "2.0.0", "plan": QUICK} | said)
    return f"/rollouts/{made['rollout']}"


async def test_with_nothing_said_a_plan_is_the_careful_one(plane: Plane) -> None:
    _, who = await begun(plane)

    made = await who.does("POST", "/rollouts", {"release": "2.0.0"})

    assert Plan.model_validate_json(json.dumps(made["plan"])) == Plan()
    assert [one["name"] for one in made["phases"]] == ["canary", "tenth", "half", "all"]
    assert (made["state"], made["warnings"], made["failures"]) == ("draft", [], [])
    again = await who.does("POST", "/rollouts", {"release": "2.0.0", "plan": made["plan"]})
    assert again["plan"] == made["plan"]


async def test_a_plan_is_kept_as_it_was_meant_and_its_warnings_are_told(plane: Plane) -> None:
    _, who = await begun(plane)
    said = {
        "selector": "fleet = default , !label.demo",
        "phases": [
            {"name": "lab", "selector": "label.site=lab", "soak_s": 60},
            {"name": "few", "count": 25, "needs_approval": True},
            {"name": "all", "share_bp": 10_000, "at_least": 3},
        ],
        "windows": [{"days": ["mon", "fri"], "start": "22:00", "end": "04:00", "zone": "Europe/Berlin"}],
        "concurrency": 50,
        "halt": {"base_rate": 0.005, "worst_rate": 0.05, "most_failures": 9, "dark_counts": True},
    }  # fmt: skip

    made = await who.does("POST", "/rollouts", {"release": "2.0.0", "plan": said})

    kept = Plan.model_validate_json(json.dumps(made["plan"]))
    assert kept.selector == made["selector"] == "fleet=default,!label.demo"
    assert [(one.size, one.soak_s, one.at_least) for one in kept.phases] == [
        ("label.site=lab", 60, 1), ("25 nodes", 3600, 1), ("100 %", 3600, 3),
    ]  # fmt: skip
    assert str(kept.windows[0]) == "mon+fri 22:00-04:00 Europe/Berlin"
    assert (kept.halt.base_rate, kept.halt.most_failures) == (0.005, 9)
    assert "lab" in made["warnings"][0]


@pytest.mark.parametrize(
    ("flaw", "where", "words"),
    [
        ({"selector": f"{CANARY}=1"}, "body.plan.selector", "column 1: use one of fleet"),
        ({"selector": f"label.a={CANARY} {CANARY}"}, "body.plan.selector", "column"),
        ({"phases": []}, "body.plan.phases", "at least 1"),
        ({"phases": [{"name": CANARY}]}, "body.plan.phases.0", "either a share"),
        ({"phases": [{"name": CANARY + " x", "count": 1}]}, "body.plan.phases.0.name", "pattern"),
        ({"phases": [{"name": "a", "count": 5}, {"name": "b", "count": 4}]}, "body.plan", "larger than"),
        ({"phases": [{"name": CANARY, "count": 4}, {"name": CANARY, "count": 5}]}, "body.plan", "one name"),
        ({"phases": [{"name": "a", "selector": f"label.{CANARY}=,"}]}, "body.plan.phases.0.selector", "column"),
        ({"phases": [{"name": "a", "selector": " "}]}, "body.plan.phases.0.selector", "selects something"),
        ({CANARY: 1}, "body.plan.a name that is not known here", "not permitted"),
        ({"halt": {CANARY: 1}}, "body.plan.halt.a name that is not known here", "not permitted"),
        ({"halt": {"base_rate": 0.2, "worst_rate": 0.1}}, "body.plan.halt", "must be above"),
        ({"windows": [NIGHT | {"days": [CANARY]}]}, "body.plan.windows.0.days", "days out of"),
        ({"windows": [NIGHT | {"zone": CANARY}]}, "body.plan.windows.0.zone", "time zone"),
        ({"dark_after_s": 900, "node_deadline_s": 60}, "body.plan", "overdue before it is dark"),
        ({"deadline_s": 60}, "body.plan", "cannot be met"),
        ({"concurrency": CANARY}, "body.plan.concurrency", "integer"),
        ({"concurrency": 2**70}, "body.plan.concurrency", "less than"),
    ],
)  # fmt: skip
async def test_a_plan_that_cannot_work_is_refused_at_its_place_without_its_words(
    plane: Plane, flaw: dict[str, Any], where: str, words: str
) -> None:
    _, who = await begun(plane, 0)

    for path in ("/rollouts", "/rollouts/dry-run"):
        answer = await who("POST", path, json={"release": "2.0.0", "plan": flaw})

        assert code_of(answer) == (422, "malformed")
        detail = answer.json()["detail"]
        assert detail.startswith(f"{where}:"), detail
        assert words in detail
        assert CANARY not in answer.text
    assert plane.rows("rollout") == []


async def test_who_orders_is_the_token_and_the_reason_stands_in_the_story(plane: Plane) -> None:
    rolling, who = await begun(plane)
    here = await created(who, start=True)
    other = operator(plane, Role.OPERATOR, "night")
    await rolling.tick()

    forged = await who("POST", f"{here}/pause", json={"reason": "x", "by": "api/night"})
    await other.does("POST", f"{here}/pause", {"reason": "  lunch\tand tea "})
    await who.does("POST", f"{here}/resume")
    await who.does("POST", f"{here}/halt", {"reason": "smoke"})
    silent = await who.errs("POST", f"{here}/resume")
    await who.does("POST", f"{here}/resume", {"reason": "it was the kitchen"})
    await who.does("POST", f"{here}/abort", {"reason": "enough"})

    says = [one["says"] for one in (await who.get(f"{here}/events"))["items"]]
    assert code_of(forged) == (422, "malformed")
    assert silent[0] == 409
    assert "say the reason" in silent[1]
    assert [one for one in says if one.startswith("api/")][2:] == [
        "api/night paused it: lunch and tea",
        "api/ops resumed it",
        "api/ops halted it (order): smoke",
        "api/ops resumed it: it was the kitchen",
        "api/ops aborted it: enough",
    ]
    ended = await who.get(here)
    assert (ended["why"], ended["may"], ended["by"]) == (None, [], "api/ops")


async def test_an_order_that_the_state_does_not_allow_is_refused_with_what_may_be_ordered(
    plane: Plane,
) -> None:
    _, who = await begun(plane)
    boss = operator(plane, Role.APPROVER, "boss")
    here = await created(who)
    reason = {"reason": "x"}

    refused = [
        await who.errs("POST", f"{here}/{order}", body)
        for order, body in (("pause", reason), ("resume", reason), ("halt", reason), ("roll-back", reason))
    ]  # fmt: skip
    refused.append(await boss.errs("POST", f"{here}/approve"))
    refused.append(await boss.errs("POST", f"{here}/approve-phase"))

    for status, detail in refused:
        assert status == 409
        assert detail.endswith("it is draft; now one may: ask for approval, start, abort")
    assert len(plane.rows("rollout_event")) == 1
    unknown = await who("POST", "/rollouts/4711/start")
    assert code_of(unknown) == (404, "not-found")


async def test_an_order_whose_answer_was_lost_is_given_again_and_written_once(plane: Plane) -> None:
    rolling, who = await begun(plane)
    here = await created(who, start=True)
    await rolling.tick()

    for order in ("pause", "halt", "roll-back"):
        before = len(plane.rows("rollout_event"))
        first = await who.does("POST", f"{here}/{order}", {"reason": "smoke"})
        again = await who.does("POST", f"{here}/{order}", {"reason": "smoke"})
        other = await operator(plane, Role.OPERATOR, f"n-{order}").errs(
            "POST", f"{here}/{order}", {"reason": "smoke"}
        )
        differs = await who.errs("POST", f"{here}/{order}", {"reason": "fire"})

        assert again == first
        assert (other[0], differs[0]) == (409, 409)
        assert len(plane.rows("rollout_event")) == before + 1


async def test_a_rollout_that_wants_a_second_person_gets_one_by_name_and_not_by_token(
    plane: Plane,
) -> None:
    rolling, who = await begun(plane)
    admin, boss = operator(plane, Role.ADMIN, "root"), operator(plane, Role.APPROVER, "boss")
    said = QUICK | {"needs_approval": True, "second_person": True}
    said["phases"] = [said["phases"][0] | {"needs_approval": True}]
    here = await created(who, plan=said)

    early = await who.errs("POST", f"{here}/start")
    at_once = await who.errs("POST", "/rollouts", {"release": "2.0.0", "plan": said, "start": True})
    for _ in range(2):
        asked = await who.does("POST", f"{here}/ask-approval")
    operators_own = await who("POST", f"{here}/approve")
    await admin.does("POST", "/api-tokens/ops/revoke")
    reborn = operator(plane, Role.ADMIN, "ops")
    same = await reborn.errs("POST", f"{here}/approve")
    spelled = await operator(plane, Role.APPROVER, "OPS").errs("POST", f"{here}/approve")
    refused = await boss.does("POST", f"{here}/refuse", {"reason": "not on a friday"})
    await reborn.does("POST", f"{here}/ask-approval")
    for _ in range(2):
        approved = await boss.does("POST", f"{here}/approve", {"note": "fine"})

    assert (early[0], at_once[0], asked["state"]) == (409, 409, "awaiting-approval")
    assert code_of(operators_own) == (403, "not-allowed")
    assert {same[0], spelled[0]} == {409}
    assert "second person" in same[1]
    assert "second person" in spelled[1]
    assert (refused["state"], approved["state"]) == ("draft", "approved")
    assert (await boss.get(here))["approved_by"] == "api/boss"
    assert len(plane.rows("rollout")) == 1  # nothing of the one that was refused

    # and so for a phase
    await reborn.does("POST", f"{here}/start")
    await rolling.tick()
    assert (await boss.get(here))["state"] == "awaiting-phase-approval"
    own = await reborn.errs("POST", f"{here}/approve-phase")
    yes = await boss.does("POST", f"{here}/approve-phase", {"note": "go"})
    assert (own[0], yes["state"]) == (409, "deciding")


async def test_a_pause_holds_from_the_next_heartbeat_on(plane: Plane) -> None:
    rolling, who = await begun(plane)
    here = await created(who, start=True)
    await rolling.tick()
    await plane.store.rollouts.look()

    await who.does("POST", f"{here}/pause", {"reason": "wait"})
    app = await rolling.beat(rolling.devices[0])

    assert app is not None
    assert app["version"] == "1.0.0"
    known = plane.store.rollouts.at_hand(1)
    assert known is not None
    assert known.live.state == "paused"


async def test_a_dry_run_says_of_every_node_what_would_become_of_it_and_writes_nothing(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "NODES", 2)
    rolling, who = await begun(plane, 7)
    await who.does("PUT", f"/nodes/{rolling.devices[0].node_id}/release", {"release": "2.0.0"})
    await who.does("PUT", f"/nodes/{rolling.devices[1].node_id}/pin", {"reason": "a fair"})
    asked = {"release": "2.0.0", "plan": QUICK}
    before = plane.store.database.commits
    viewer = operator(plane, Role.VIEWER)
    await viewer.get("/self")  # its first use today is written
    before = plane.store.database.commits

    told = await viewer.does("POST", "/rollouts/dry-run", asked)
    monkeypatch.setattr(service, "NAMED", 2)
    short = await viewer.does("POST", "/rollouts/dry-run", asked)

    assert plane.store.database.commits == before
    [phase] = told["phases"]
    assert (phase["by_place"], len(phase["nodes"])) == (5, 5)
    assert told["left_out_nodes"] == 2
    assert told["left_out_for"] == {"has-it": 1, "pinned": 1, "updating": 1}
    assert "a fair" in next(one["why"] for one in told["left_out"] if "pinned" in one["no"])
    assert (short["phases"][0]["by_place"], len(short["phases"][0]["nodes"])) == (5, 2)
    assert "60 s" in told["warnings"][0] or "dies in the soak" in told["warnings"][0]


async def test_so_many_dry_runs_at_once_and_no_more(plane: Plane) -> None:
    _, who = await begun(plane, 3)
    here = await created(who)

    with TRYING.turn():
        last = await who("GET", f"{here}/dry-run")
        with TRYING.turn():
            more = [
                await who("GET", f"{here}/dry-run"),
                await who("POST", "/rollouts/dry-run", json={"release": "2.0.0"}),
            ]
            other = await who("GET", here)
    later = await who("GET", f"{here}/dry-run")

    assert {code_of(one) for one in more} == {(503, "busy")}
    assert {one.headers["retry-after"] for one in more} == {"10"}
    assert [one.status_code for one in (last, other, later)] == [200, 200, 200]


async def test_a_long_story_is_read_in_slices_and_told_the_same(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 2, canary_first())
    await rolling.all_beat()
    await rolling.tick()
    await rolling.succeeds(rolling.has_it()[0])
    await rolling.tick()
    viewer = operator(plane, Role.VIEWER)
    whole = await viewer.get("/rollouts/1"), await viewer.get("/rollouts/1/replay", limit=500)

    monkeypatch.setattr(service, "FACTS", 2)
    plane.store.rollouts.told(rolling_final(plane))
    sliced = await viewer.get("/rollouts/1"), await viewer.get("/rollouts/1/replay", limit=500)

    assert sliced == whole
    assert [one["kind"] for one in whole[1]["items"]] == rolling.kinds
    assert len(rolling.kinds) > 5


async def test_a_rollout_that_there_is_is_tried_with_its_own_places(plane: Plane) -> None:
    _, who = await begun(plane, 12)
    half = [{"name": "half", "share_bp": 5000}, {"name": "all", "share_bp": 10_000}]
    here = await created(who, plan={"phases": half})

    first, second = [await who.get(f"{here}/dry-run") for _ in range(2)]
    asked = {"release": "2.0.0", "plan": {"phases": half}}
    drawn = [await who.does("POST", "/rollouts/dry-run", asked) for _ in range(4)]

    assert first == second
    assert sum(one["by_place"] for one in first["phases"]) == 12
    assert (
        len({tuple(one["phases"][0]["nodes"]) for one in drawn}) > 1
    )  # where there is none yet, others may come first
    assert code_of(await who("GET", "/rollouts/4711/dry-run")) == (404, "not-found")


async def test_the_story_comes_in_pages_and_a_fact_that_was_changed_by_hand_is_told(
    plane: Plane,
) -> None:
    await Rolling.begin(plane, 2, canary_first())
    viewer = operator(plane, Role.VIEWER)

    events, pages = await walk(viewer, "/rollouts/1/events")
    steps, _ = await walk(viewer, "/rollouts/1/replay")

    assert pages == 2
    assert [one["seq"] for one in events] == [1, 2, 3]
    assert all(one["follows"] for one in events)
    assert [one["dst"] for one in events] == [one["state"] for one in steps]
    assert steps[0]["changed"]["version"] == "2.0.0"
    assert (events[1]["lease"], events[2]["lease"]) == (0, 1)

    plane.store.write_now(
        lambda db: db.execute("UPDATE rollout_event SET at_ms=at_ms-1 WHERE seq=2").rowcount
    )
    told, _ = await walk(viewer, "/rollouts/1/events")
    assert [one["follows"] for one in told] == [True, False, True]

    plane.store.write_now(lambda db: db.execute("DELETE FROM rollout_event WHERE seq=2").rowcount)
    told, _ = await walk(viewer, "/rollouts/1/events")
    assert [(one["seq"], one["follows"]) for one in told] == [(1, True), (3, False)]


async def test_a_rollout_that_cannot_be_read_keeps_no_other_from_being_shown(plane: Plane) -> None:
    rolling, who = await begun(plane)
    here = await created(who, start=True)
    await rolling.tick()
    other = await created(who)
    plane.store.write_now(
        lambda db: db.execute("UPDATE rollout_event SET kind='tomorrow' WHERE rollout=1 AND seq=2").rowcount
    )  # fmt: skip
    again = Operator(plane, who.token)
    plane.store.rollouts.told(rolling_final(plane))

    listed = (await again.get("/rollouts"))["items"]
    broken = [await again.errs("GET", here), await again.errs("GET", f"{here}/replay")]
    broken.append(await again.errs("POST", f"{here}/pause", {"reason": "x"}))

    assert [(one["rollout"], bool(one["unreadable"])) for one in listed] == [(2, False), (1, True)]
    assert {status for status, _ in broken} == {409}
    assert "cannot be read" in broken[0][1]
    assert [one["kind"] for one in (await again.get(f"{here}/events"))["items"]][1] == "tomorrow"
    assert (await again.get(other))["state"] == "draft"


def rolling_final(plane: Plane) -> Any:
    """What makes this process forget that rollout, as if it had begun anew."""
    from dataclasses import replace

    known = plane.store.rollouts.at_hand(1)
    assert known is not None
    return replace(known.story, believed=replace(known.story.believed, state="aborted"))


async def test_nodes_are_found_by_what_became_of_them(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 6, plan())
    monkeypatch.setattr(service, "WINDOW", 2)
    monkeypatch.setattr(service, "MOST_LOOKS", 2)
    viewer = operator(plane, Role.VIEWER)
    await rolling.all_beat()
    await rolling.succeeds(rolling.devices[1])
    await rolling.fails(rolling.devices[5], "no \x00 space\u202e")
    await rolling.tick()

    everybody, _ = await walk(viewer, "/rollouts/1/nodes")
    waiting, pages = await walk(viewer, "/rollouts/1/nodes", outcome="in-flight", limit=3)
    failed, _ = await walk(viewer, "/rollouts/1/nodes", outcome="rolled_back")
    good, _ = await walk(viewer, "/rollouts/1/nodes", outcome="succeeded")
    shown = await viewer.get("/rollouts/1")

    ids = [device.node_id for device in rolling.devices]
    assert [one["node_id"] for one in everybody] == ids
    assert [one["node_id"] for one in waiting] == [ids[0], *ids[2:5]]
    assert pages > 1
    assert [one["node_id"] for one in failed] == [ids[5]]
    assert [one["node_id"] for one in good] == [ids[1]]
    assert (shown["succeeded"], shown["rolled_back"], shown["in_flight"]) == (1, 1, 4)
    assert [(one["nodes"], one["example"]) for one in shown["failures"]] == [(1, ids[5])]
    odd = await viewer("GET", "/rollouts/1/nodes", params={"outcome": "fine"})
    assert code_of(odd) == (422, "malformed")
    nowhere = await viewer("GET", "/rollouts/4711/nodes")
    assert code_of(nowhere) == (404, "not-found")


async def test_open_rollouts_are_told_from_those_that_have_ended(plane: Plane) -> None:
    _, who = await begun(plane)
    for number in range(4):
        here = await created(who)
        if number % 2:
            await who.does("POST", f"{here}/abort", {"reason": "no"})

    is_open, _ = await walk(who, "/rollouts", open="true")
    ended, _ = await walk(who, "/rollouts", open="false")

    assert [one["rollout"] for one in is_open] == [3, 1]
    assert [one["rollout"] for one in ended] == [4, 2]


async def test_an_unchanged_rollout_is_not_sent_twice(plane: Plane) -> None:
    _, who = await begun(plane)
    here = await created(who)

    first = await who("GET", here)
    same = await who("GET", here, headers={"if-none-match": first.headers["etag"]})
    await who.does("POST", f"{here}/start")
    other = await who("GET", here, headers={"if-none-match": first.headers["etag"]})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200


async def test_a_reason_is_one_line_that_can_be_seen_and_holds_no_credential(plane: Plane) -> None:
    rolling, who = await begun(plane)
    here = await created(who, start=True)
    await rolling.tick()

    odd = [
        await who("POST", f"{here}/pause", json={"reason": reason})
        for reason in ("", "   ", "a\x00b", "\u202e", "x" * 501, 7, None, ["x"])
    ]
    await who.does("POST", f"{here}/pause", {"reason": f"see {who.token} there"})

    assert {code_of(one) for one in odd} == {(422, "malformed")}
    assert who.token.encode() not in plane.at_rest()
    assert "[redacted]" in (await who.get(here))["reason"]
