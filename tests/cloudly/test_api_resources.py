"""What an operator's program does by the admin API, story by story."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudly.access import Role
from cloudly.export import SLICE, Export
from cloudly.service import orders
from interfaces.world import new_secret
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.compose_files import file_of, image
from tests.cloudly.given import UUID, Plane, bearer, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"


async def ordered(plane: Plane, who: Operator, version: str = "1.0.0") -> str:
    """A release made and ordered for the node; its deployment."""
    await who.release(version)
    done = await who.does("PUT", f"/nodes/{UUID}/release", {"release": version})
    assert plane.deployment(done["deployment"])["node"] == plane.node()["id"]
    return str(done["deployment"])


async def test_a_fleet_a_join_token_and_a_release_bring_a_device_to_what_it_shall_run(
    plane: Plane,
) -> None:
    who = operator(plane, Role.OPERATOR, "ci")
    await who.does("POST", "/fleets", {"name": "lobby"})
    made = await who.does("POST", "/join-tokens", {"fleet": "lobby", "uses": 2, "expires": "2h"})
    release = await who.release("1.0.0")
    await who.does("PUT", "/fleets/lobby/release", {"release": release["release"]})
    device = plane.device()

    assert (await device.ask(made["token"])).status_code == 201
    beat = (await device.beat()).json()

    assert beat["desired"]["app"]["version"] == "1.0.0"
    (node,) = (await who.get("/nodes", fleet="lobby"))["items"]
    assert (node["node_id"], node["state"], node["wanted_version"]) == (UUID, "online", "1.0.0")
    (token,) = (await who.get("/join-tokens"))["items"]
    assert (token["uses_left"], token["state"], token["fleet"]) == (1, "usable", "lobby")
    assert (await who.get("/fleets/lobby"))["nodes"] == 1


async def test_an_order_is_booked_to_the_name_of_the_token_and_nobody_can_choose_another(
    plane: Plane,
) -> None:
    await plane.device().enroll()
    who = operator(plane, Role.OPERATOR, "ci")

    deployment = await ordered(plane, who)
    forged = await who(
        "PUT",
        f"/nodes/{UUID}/release",
        json={"release": "1.0.0", "again": True, "actor": "api/root"},
        headers={"x-actor": "api/root"},
    )

    assert plane.deployment(deployment)["actor"] == "api/ci"
    assert code_of(forged) == (422, "malformed")
    detail = await who.get(f"/nodes/{UUID}")
    assert [one["actor"] for one in detail["deployments"]] == ["api/ci"]


async def test_an_order_given_twice_is_given_once(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane)
    await ordered(plane, who)

    again = await who.does("PUT", f"/nodes/{UUID}/release", {"release": "1.0.0"})
    fleet = await who.does("PUT", "/fleets/default/release", {"release": "1.0.0"})

    assert (again["generation"], again["why"]) == (None, "has it already")
    assert (fleet["ordered"], fleet["unchanged"], fleet["refused"]) == (0, 1, 0)
    assert len(plane.rows("deployment")) == 1


async def test_an_order_to_a_fleet_goes_in_slices_and_one_nodes_past_does_not_stop_the_others(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "SLICE", 2)
    devices = [await plane.device(f"node{number}").enroll() for number in range(5)]
    who = operator(plane, name="ci")
    await who.release("1.0.0")
    first = await who.does("PUT", "/nodes/node2/release", {"release": "1.0.0"})
    await devices[2].tell(
        "app-update/1", "offered", "rollback-needed", deployment=first["deployment"], reason="sick"
    )

    done = await who.does("PUT", "/fleets/default/release", {"release": "1.0.0"})

    assert (done["ordered"], done["unchanged"], done["refused"]) == (4, 0, 1)
    assert done["first_refused"][0]["node_id"] == "node2"
    assert "sick" in done["first_refused"][0]["why"]
    assert {row["actor"] for row in plane.rows("deployment") if row["node"] != 3} == {"api/ci"}


async def test_a_policy_goes_out_with_the_order_and_a_wrong_one_does_not(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    await who.release("1.0.0")
    path = f"/nodes/{UUID}/release"

    wrong = [
        await who("PUT", path, json={"release": "1.0.0", "policy": policy})
        for policy in ({"health_soak_s": -1}, {"soak": 1}, {"max_apply_attempts": 1e9})
    ]
    nan = await who("PUT", path, content='{"release":"1.0.0","policy":{"health_soak_s":NaN}}',
                    headers={"content-type": "application/json"})  # fmt: skip
    await who.does("PUT", path, {"release": "1.0.0", "policy": {"health_soak_s": 5}})

    assert [code_of(one) for one in (*wrong, nan)] == [(422, "malformed")] * 4
    policy = (await device.beat()).json()["desired"]["app"]["policy"]
    assert (policy["health_soak_s"], policy["max_apply_attempts"]) == (5.0, 3)


async def test_a_node_in_full_tells_both_stories_why_it_waits_and_where_it_has_been(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    deployment = await ordered(plane, who)
    key = new_secret(plane.world)[:32]
    waiting = {
        "stream": "app-update/1", "state": "staged", "waits_for": "a maintenance window", "owner": "operator",
        "since_ms": 1, "until_ms": None, "then": "", "resume": "", "reason": "", "tried": [],
    }  # fmt: skip
    await plane.client.post(
        "/device/register",
        json={"uuid": UUID, "api_key": key, "device_type": "generic"},
        headers=bearer(plane.join_token()),
    )
    await device.tell("app-update/1", "offered", "succeeded", deployment=deployment)
    await device.beat(reported={"waiting": [waiting], "release": "old"})

    node = await who.get(f"/nodes/{UUID}")

    assert node["why"][0]["waits_for"] == "a maintenance window"
    assert node["journal"]["outcome"] == "succeeded"
    assert node["supervisor"]["services"] == []
    assert node["last_good"] == "1.0.0"
    assert [one["supervisor"] for one in node["enrollments"]] == [True, False]
    assert node["reported"]["release"] == "old"
    assert node["lanes"][0]["ack_seq"] == 2
    transitions = (await who.get(f"/nodes/{UUID}/transitions"))["items"]
    assert [one["dst"] for one in transitions] == ["succeeded", "offered"]


async def test_what_disagrees_between_both_stories_is_told(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    await device.beat(reported={"supervisor": {"available": False}})
    key = new_secret(plane.world)[:32]
    await plane.client.post(
        "/device/register",
        json={"uuid": UUID, "api_key": key, "device_type": "generic"},
        headers=bearer(plane.join_token()),
    )
    await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key))

    node = await who.get(f"/nodes/{UUID}")

    assert "baserunner cannot reach the Supervisor" in node["disagreements"][0]


async def test_the_journal_is_read_in_pages_that_lose_and_repeat_nothing(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    for number in range(7):
        device.fact("app-update/1", "a", "b", number=number)
    await device.ship()
    device.begins("epoch-2")
    for number in range(4):
        device.fact("app-update/2", "a", "b", number=number)
    await device.ship()

    places, after, chapters = [], None, 0
    while True:
        page = await who.get(
            f"/nodes/{UUID}/journal", limit=3, **({"after": after} if after else {})
        )
        for chapter in page["items"]:
            chapters += 1
            places += [(chapter["n"], line["n"]) for line in chapter["lines"][::-1]]
        after = page["next"]
        if after is None:
            break

    assert places == [(2, n) for n in (4, 3, 2, 1)] + [(1, n) for n in (7, 6, 5, 4, 3, 2, 1)]
    assert chapters > 2


async def test_an_export_is_all_of_the_journal_in_order_with_its_gaps_where_they_are(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    who = operator(plane, Role.VIEWER)
    for number in range(SLICE + 30):
        device.fact("app-update/1", "a", "b", lane="log" if number % 3 else "core")
    core = device.journals["core"]
    await device.ship(device.batch(1, 10))
    told = {"first_seq": 11, "last_seq": 20, "why": "space", "kinds": {"note": 10}}
    await device.ship(device.batch(21), oldest=21, gaps=[told])
    logs = len(device.journals["log"])
    for first in range(1, logs + 1, 50):
        await device.ship(device.batch(first, min(first + 49, logs), lane="log"))

    answer = await who("GET", f"/nodes/{UUID}/journal/export")

    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"format": "cloudly-journal/1", "node": UUID}
    facts = [line["fact"] for line in lines if "fact" in line]
    assert [fact["n"] for fact in facts] == sorted(fact["n"] for fact in facts)
    assert len(facts) == SLICE + 30 - 10
    (gap,) = [at for at, line in enumerate(lines) if "gap" in line]
    assert lines[gap]["gap"]["first_seq"] == 11
    assert lines[gap + 1]["fact"]["hash"] == core[20]["hash"]


async def test_an_export_ends_where_the_journal_ended_when_it_began(plane: Plane) -> None:
    device = await plane.device().enroll()
    device.fact("app-update/1", "a", "b")
    await device.ship()
    export = Export(plane.node()["id"], UUID)
    first = plane.store.read_now(export.step)
    assert first is not None

    device.fact("app-update/1", "b", "c")
    await device.ship(device.batch(2))
    told: list[dict[str, Any]] = []
    while (part := plane.store.read_now(export.step)) is not None:
        told += part

    assert [line["fact"]["seq"] for line in told if "fact" in line] == [1]


async def test_gaps_come_in_pages_with_the_words_of_the_device(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    for _ in range(9):
        device.fact("app-update/1", "a", "b")
    gaps = [
        {"first_seq": seq, "last_seq": seq, "why": "space", "kinds": {"note": 1}}
        for seq in range(1, 9)
    ]
    assert (await device.ship(device.batch(9), oldest=9, gaps=gaps)).status_code == 200

    first = await who.get(f"/nodes/{UUID}/gaps", limit=5)
    second = await who.get(f"/nodes/{UUID}/gaps", limit=5, after=first["next"])

    seqs = [one["first_seq"] for page in (first, second) for one in page["items"]]
    assert seqs == list(range(1, 9))
    assert second["next"] is None
    assert first["items"][0]["words"].startswith("dropped on the device for space")


async def test_a_diagnosis_is_asked_for_told_to_the_node_and_answered(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane, Role.OPERATOR)
    finding = {"verdict": "bad", "what": "disk", "seen": "full", "todo": "make room"}

    asked = await who.does("POST", f"/nodes/{UUID}/diagnoses")
    told = (await device.beat()).json()["diagnosis"]
    before = await who.get(f"/nodes/{UUID}/diagnoses/{asked['id']}")
    device.fact("diagnosis/1", "new", "looking", diagnosis=told)
    device.fact("diagnosis/1", "looking", "done", diagnosis=told, findings=[finding])
    await device.ship()
    after = await who.get(f"/nodes/{UUID}/diagnoses/{asked['id']}")

    assert told == asked["id"]
    assert (before["answered_at_ms"], before["findings"]) == (None, [])
    assert (after["well"], after["findings"]) == (False, [finding])
    assert len((await who.get(f"/nodes/{UUID}/diagnoses"))["items"]) == 1


async def test_what_belongs_to_one_node_is_not_found_at_another(plane: Plane) -> None:
    device = await plane.device().enroll()
    await plane.device(OTHER).enroll()
    who = operator(plane)
    asked = await who.does("POST", f"/nodes/{UUID}/diagnoses")
    device.fact("app-update/1", "new", "offered")
    await device.ship()

    elsewhere = await who("GET", f"/nodes/{OTHER}/diagnoses/{asked['id']}")

    assert code_of(elsewhere) == (404, "not-found")
    assert (await who.get(f"/nodes/{OTHER}/diagnoses"))["items"] == []
    assert (await who.get(f"/nodes/{OTHER}/transitions"))["items"] == []
    assert all(not one["lines"] for one in (await who.get(f"/nodes/{OTHER}/journal"))["items"])
    exported = (await who("GET", f"/nodes/{OTHER}/journal/export")).text
    assert "app-update" not in exported


async def test_a_node_is_meant_by_its_whole_id_only(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane)

    answers = [await who("GET", f"/nodes/{name}") for name in (UUID[:12], "kiosk-1", "%25", "1")]

    assert [one.status_code for one in answers] == [404, 404, 422, 404]


async def test_a_revoked_node_is_refused_from_then_on(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane, Role.OPERATOR)

    first = await who.does("POST", f"/nodes/{UUID}/revoke")
    await plane.world.sleep(60)
    second = await who.does("POST", f"/nodes/{UUID}/revoke")

    assert code_of(await device.beat()) == (401, "node-revoked")
    assert first == second  # when it happened stays
    assert (await who.get("/nodes", state="revoked"))["items"][0]["node_id"] == UUID


async def test_a_node_moves_into_another_fleet_and_gets_what_that_runs(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane, Role.OPERATOR, "ci")
    await who.does("POST", "/fleets", {"name": "lobby"})
    await who.release("2.0.0")
    await who.does("PUT", "/fleets/lobby/release", {"release": "2.0.0"})

    moved = await who.does("PUT", f"/nodes/{UUID}/fleet", {"fleet": "lobby"})

    assert moved == {"generation": 1, "why": ""}
    assert (await device.beat()).json()["desired"]["app"]["version"] == "2.0.0"
    assert plane.rows("deployment")[0]["actor"] == "api/ci"


async def test_a_fleet_with_nodes_stays_and_an_empty_one_goes(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane)
    await who.does("POST", "/fleets", {"name": "lobby"})

    full = await who("DELETE", "/fleets/default")
    empty = await who("DELETE", "/fleets/lobby")
    gone = await who("DELETE", "/fleets/lobby")
    twice = [await who("POST", "/fleets", json={"name": "hall"}) for _ in range(2)]

    assert code_of(full) == (409, "conflict")
    assert "1 nodes are in fleet" in full.json()["detail"]
    assert (empty.status_code, empty.content) == (204, b"")
    assert code_of(gone) == (404, "not-found")
    assert [one.status_code for one in twice] == [201, 409]


async def test_a_join_token_is_shown_once_and_admits_nobody_after_it_was_revoked(
    plane: Plane,
) -> None:
    who = operator(plane, Role.OPERATOR)
    made = await who.does("POST", "/join-tokens", {"name": "shop 7", "expires": "never"})

    revoked = await who.does("POST", f"/join-tokens/{made['id']}/revoke")
    listed = await who("GET", "/join-tokens")

    assert made["expires_at_ms"] is None
    assert revoked["state"] == "revoked"
    assert made["token"] not in listed.text
    assert code_of(await plane.device().ask(made["token"])) == (403, "token-revoked")
    assert code_of(await who("POST", "/join-tokens", json={"fleet": "nowhere"})) == (
        404,
        "not-found",
    )
    assert code_of(await who("POST", "/join-tokens/4711/revoke")) == (404, "not-found")


async def test_a_release_is_made_of_a_compose_file_once(plane: Plane) -> None:
    who = operator(plane, Role.OPERATOR)

    first = await who.release("1.0.0")
    again = await who.release("1.0.0")
    other = await who(
        "POST",
        "/releases",
        params={"version": "1.0.0", "commit": first["release"]},
        content=file_of({"image": image(digit="2")}),
    )

    assert again["release"] == first["release"]
    assert code_of(other) == (409, "conflict")
    assert first["images"] == {"main": image()}
    assert len((await who.get("/releases"))["items"]) == 1
    assert (await who.get("/releases/1.0.0"))["composed"] is True
    assert code_of(await who("GET", "/releases/9.9")) == (404, "not-found")


async def test_a_bad_compose_file_is_told_with_its_lines_and_makes_nothing(plane: Plane) -> None:
    who = operator(plane)
    bad = b"services:\n  main:\n    image: registry.example/app:latest\n    build: .\n"

    checked = await who("POST", "/releases/check", content=bad)
    refused = await who("POST", "/releases", params={"version": "1"}, content=bad)
    good = await who("POST", "/releases/check", content=file_of())

    assert checked.status_code == 200
    assert (checked.json()["ok"], good.json()["ok"]) == (False, True)
    assert {one["line"] for one in checked.json()["problems"]} == {3, 4}
    assert code_of(refused) == (422, "malformed")
    assert "line 3" in refused.json()["detail"]
    assert plane.rows("release") == []


async def test_the_environment_of_a_release_is_not_shown_to_a_viewer(plane: Plane) -> None:
    admin, viewer = operator(plane), operator(plane, Role.VIEWER)
    await admin.release("1.0.0", environment={"PASSWORD": "canary-of-a-customer"})

    seen = [await viewer("GET", path) for path in ("/releases", "/releases/1.0.0")]
    refused = await viewer("GET", "/releases/1.0.0/contents")
    shown = await admin.get("/releases/1.0.0/contents")

    assert all("canary" not in one.text for one in seen)
    assert code_of(refused) == (403, "not-allowed")
    assert shown["services"]["main"]["environment"] == {"PASSWORD": "canary-of-a-customer"}
    assert "canary-of-a-customer" in shown["compose"]


async def test_a_publisher_is_made_with_a_password_that_is_shown_once(plane: Plane) -> None:
    who = operator(plane)

    made = await who.does("POST", "/publishers", {"name": "ci", "prefix": "team/app"})
    listed = await who("GET", "/publishers")
    odd = await who("POST", "/publishers", json={"name": "d_device"})
    gone = [await who("DELETE", "/publishers/ci") for _ in range(2)]

    assert made["password"].startswith("bpt_")
    assert made["password"] not in listed.text
    assert listed.json()["items"][0]["prefix"] == "team/app"
    assert code_of(odd) == (409, "conflict")
    assert [one.status_code for one in gone] == [204, 404]


async def test_a_summary_counts_nodes_by_when_they_were_seen(plane: Plane) -> None:
    who = operator(plane, Role.VIEWER)
    await plane.device().enroll()
    await (await plane.device(OTHER).enroll()).beat()

    at_once = (await who.get("/summary"))["presence"]
    await plane.world.sleep(200)
    later = (await who.get("/summary"))["presence"]
    await plane.world.sleep(3600)
    much_later = await who.get("/summary")

    assert (at_once["nodes"], at_once["never_seen"], at_once["online"]) == (2, 1, 1)
    assert (later["online"], later["late"]) == (0, 1)
    assert (much_later["presence"]["late"], much_later["presence"]["offline"]) == (0, 1)
    assert much_later["incarnation"] == plane.store.incarnation
