"""Quarantined, revoked, retired and readmitted: what each means for credentials, orders, lists and counts."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from cloudly.problems import BadOrder
from cloudly.store import fleets, node_standing, reading, rotation
from cloudly.store.node_standing import Word
from cloudly.store.sql import Connection
from tests.cloudly.given import UUID, Device, Plane, bearer, code_of
from tests.cloudly.test_command_line import Command

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

KEY = "supervisor0key0supervisor0key000"
OTHER = UUID[::-1]
SUSPECT = Word("ada", "its disk makes noises", 1_000)


def number(plane: Plane, node_id: str = UUID) -> int:
    found: int = plane.node(node_id)["id"]
    return found


def quarantine(plane: Plane, node_id: str = UUID) -> None:
    node = number(plane, node_id)
    plane.store.write_now(lambda db: node_standing.quarantine(db, node, SUSPECT))


def retire(plane: Plane, node_id: str = UUID, *, reason: str = "sold") -> None:
    node = number(plane, node_id)
    plane.store.write_now(lambda db: node_standing.retire(db, node, Word("ada", reason, 1_000)))


def readmit(plane: Plane, node_id: str = UUID) -> None:
    node = number(plane, node_id)
    plane.store.write_now(lambda db: node_standing.readmit(db, node))


async def both_halves(plane: Plane, node_id: str = UUID, key: str = KEY) -> Device:
    """A node whose agent enrolled and whose Supervisor registered."""
    device, token = plane.device(node_id), plane.join_token()
    await device.ask(token)
    answer = await plane.client.post(
        "/device/register", json={"uuid": node_id, "api_key": key}, headers=bearer(token)
    )
    assert answer.status_code in {200, 201}
    await device.beat()
    return device


async def poll(plane: Plane, key: str = KEY) -> httpx.Response:
    return await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key))


# -- quarantine


async def test_a_node_in_quarantine_goes_on_reporting_and_its_journal_is_taken(
    plane: Plane,
) -> None:
    device = await both_halves(plane)
    plane.release("1.0.0")
    quarantine(plane)

    before = (await device.beat()).json()["desired"]
    shipped = await device.tell("app-update/1", "offered", "admitted")

    assert before["app"]["version"] == "1.0.0"  # its desired state stays as it is
    assert shipped.status_code == 200
    assert (await poll(plane)).status_code == 200


async def test_no_order_reaches_it_unless_it_is_forced(plane: Plane) -> None:
    device = await both_halves(plane)
    await both_halves(plane, OTHER, KEY[::-1])
    plane.release("1.0.0")
    quarantine(plane)

    with pytest.raises(BadOrder, match="its disk makes noises"):
        plane.release("1.1.0", UUID)
    done = plane.release("1.1.0")  # of all nodes: the others get it

    assert done is not None
    told = {row["node"]: row["generation"] for row in plane.rows("desired")}
    assert told == {number(plane): 1, number(plane, OTHER): 2}
    assert (await device.beat()).json()["desired"]["app"]["version"] == "1.0.0"
    plane.release("1.1.0", UUID, force=True)
    assert (await device.beat()).json()["desired"]["app"]["version"] == "1.1.0"


async def test_it_may_be_moved_and_keeps_what_it_has(plane: Plane) -> None:
    device = await both_halves(plane)
    plane.release("1.0.0")
    quarantine(plane)

    node = number(plane)

    def move(db: Connection) -> fleets.Moved:
        fleets.create(db, "lab", 0)
        db.execute("UPDATE fleet SET release=1, policy='{}' WHERE name='lab'")
        into = fleets.find(db, "lab")
        return fleets.move(db, node, into, new_id=lambda: "d2", now_ms=0)

    moved = plane.store.write_now(move)

    assert "quarantine" in moved.why
    assert (await device.beat()).json()["desired"]["generation"] == 1


async def test_a_rollback_that_cloudly_owes_it_is_told_in_quarantine_too(plane: Plane) -> None:
    device = await both_halves(plane)
    good = plane.release("1.0.0")
    await device.tell("app-update/1", "offered", "succeeded", deployment=good)
    bad = plane.release("1.1.0")
    quarantine(plane)

    await device.tell("app-update/2", "offered", "rollback-needed", deployment=bad)

    assert (await device.beat()).json()["desired"]["app"]["rollback_of"] == bad


async def test_it_ends_when_it_is_lifted_and_not_by_a_reflash(plane: Plane) -> None:
    await both_halves(plane)
    quarantine(plane)
    with pytest.raises(BadOrder, match="its disk makes noises"):
        quarantine(plane)

    await plane.device().ask(plane.join_token())
    node, still = number(plane), plane.node()["quarantined_at_ms"]
    plane.store.write_now(lambda db: node_standing.lift_quarantine(db, node))

    assert still == SUSPECT.at_ms
    assert (plane.node()["quarantined_at_ms"], plane.node()["quarantine"]) == (None, None)
    with pytest.raises(BadOrder, match="no quarantine"):
        plane.store.write_now(lambda db: node_standing.lift_quarantine(db, node))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
async def test_a_word_without_a_reason_or_with_a_book_for_one_is_refused(
    plane: Plane, reason: str
) -> None:
    await both_halves(plane)

    with pytest.raises(BadOrder, match="reason"):
        retire(plane, reason=reason)

    assert plane.node()["retired_at_ms"] is None


# -- retirement


async def test_a_retired_node_is_refused_with_both_its_halves_and_its_story_is_kept(
    plane: Plane,
) -> None:
    device = await both_halves(plane)
    await device.tell("app-update/1", "offered")
    retire(plane)

    answers = [await device.beat(), await device.ship(), await device.announce("x" * 43)]

    assert [code_of(one) for one in answers] == [(401, "node-revoked")] * 3
    assert code_of(await poll(plane)) == (401, "node-revoked")
    assert len(plane.rows("transition")) == 1


async def test_a_retired_node_is_in_no_list_and_no_count_that_does_not_ask_for_it(
    plane: Plane,
) -> None:
    await both_halves(plane)
    await both_halves(plane, OTHER, KEY[::-1])
    plane.release("1.0.0")
    retire(plane)

    read = plane.store.read_now

    assert [row["node_id"] for row in read(reading.nodes)] == [OTHER]
    assert len(read(lambda db: reading.nodes(db, retired=True))) == 2
    assert read(reading.count_nodes) == 1
    assert read(fleets.listed)[0]["nodes"] == 1
    assert read(reading.releases)[0]["wanted_by"] == 1
    assert read(lambda db: rotation.may_rotate(db, None)) == [number(plane, OTHER)]
    assert UUID not in (await plane.client.get("/")).text
    assert "retired" in (await plane.client.get(f"/nodes/{UUID}")).text


async def test_it_gets_no_order_even_by_force(plane: Plane) -> None:
    await both_halves(plane)
    retire(plane)

    with pytest.raises(BadOrder, match="retired"):
        plane.release("1.0.0", UUID, force=True)

    assert plane.release("1.0.0") is None  # there is no node
    assert plane.rows("deployment") == []


async def test_its_name_means_the_device_that_took_its_place(plane: Plane) -> None:
    await plane.device("old", hostname="kiosk").enroll()
    retire(plane, "old")
    alone = plane.store.read_now(lambda db: reading.find(db, "kiosk"))["node_id"]
    await plane.device("new", hostname="kiosk").enroll()

    found = plane.store.read_now(lambda db: reading.find(db, "kiosk"))["node_id"]

    assert (alone, found) == ("old", "new")


async def test_a_fleet_of_retired_nodes_can_be_removed_and_they_go_to_the_first(
    plane: Plane,
) -> None:
    await both_halves(plane)

    def leave(db: Connection) -> None:
        lab = fleets.create(db, "lab", 0)
        db.execute("UPDATE node SET fleet=?", (lab,))

    plane.store.write_now(leave)
    retire(plane)

    plane.store.write_now(lambda db: fleets.remove(db, fleets.find(db, "lab")))

    assert plane.node()["fleet"] == "default"


# -- and back


@pytest.mark.parametrize("how", ["revoked", "retired"])
async def test_a_readmitted_node_is_let_in_with_the_credentials_that_it_had(
    plane: Plane, how: str
) -> None:
    device, node = await both_halves(plane), number(plane)
    if how == "revoked":
        plane.store.write_now(lambda db: node_standing.revoke(db, node, 1_000))
    else:
        retire(plane)
    refused = await device.beat()

    readmit(plane)

    assert code_of(refused) == (401, "node-revoked")
    assert (await device.beat()).status_code == 200
    assert (await poll(plane)).status_code == 200
    with pytest.raises(BadOrder, match="neither revoked nor retired"):
        readmit(plane)


async def test_a_fresh_join_token_brings_a_retired_node_back_and_an_old_one_does_not(
    plane: Plane,
) -> None:
    token = plane.join_token(uses=3)
    await plane.device().ask(token)
    retire(plane)

    old, fresh = await plane.device().ask(token), await plane.device().ask(plane.join_token())

    assert old.status_code in {401, 403}
    assert fresh.status_code == 201
    assert (plane.node()["retired_at_ms"], plane.node()["retirement"]) == (None, None)


# -- what people see and say


async def test_what_is_said_of_a_node_is_shown_with_who_said_it(
    directory: Path, plane: Plane
) -> None:
    run = Command(directory)
    if plane.database_url is not None:
        run._env["CLOUDLY_DATABASE_URL"] = plane.database_url
    await both_halves(plane)

    run("node", "quarantine", UUID[:8], "--reason", "its disk <makes> noises", "--by", "ada")
    again = run("node", "quarantine", UUID[:8], "--reason", "another", expect=1)
    shown, page = run.json("node", "show", UUID), (await plane.client.get(f"/nodes/{UUID}")).text
    run("node", "lift-quarantine", UUID)
    run("node", "retire", UUID, "--reason", "sold")
    gone, kept = run.json("node", "list"), run.json("node", "list", "--retired")
    run("node", "readmit", UUID)

    assert (shown["state"], shown["state_detail"]) == (
        "quarantined",
        "its disk <makes> noises (ada)",
    )
    assert "ada" in again.stderr
    assert "its disk &lt;makes&gt; noises (ada)" in page
    assert gone == []
    assert kept[0]["state"] == "retired"
    assert kept[0]["state_detail"].startswith("sold (")
    assert run.json("node", "list")[0]["state"] != "retired"


async def test_an_operator_asks_one_node_a_fleet_or_all_for_another_token(
    directory: Path, plane: Plane
) -> None:
    run = Command(directory)
    if plane.database_url is not None:
        run._env["CLOUDLY_DATABASE_URL"] = plane.database_url
    device = await both_halves(plane)

    asked = run.json("node", "rotate", UUID[:8])
    every = run.json("node", "rotate", "--all")
    shown = run("node", "show", UUID).stdout
    await device.announce("bnt_" + "x" * 43)
    announced = run.json("node", "show", UUID)

    assert (asked, every) == ({"nodes": 1, "asked": 1}, {"nodes": 1, "asked": 0})
    assert "asked for another one" in shown
    assert (announced["token_generation"], announced["rotation"]) == (
        1,
        "the next one is announced, and not used yet",
    )
    assert "no fleet 'nowhere'" in run("node", "rotate", "--fleet", "nowhere", expect=1).stderr
    assert "give NODE" in run("node", "rotate", expect=2).stderr
    assert (await device.beat()).json()["rotate_token"] == 2
