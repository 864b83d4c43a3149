"""Lists of the admin API: complete under inserts, found by state and words, and not sent twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cloudly.service import nodes
from cloudly.store import lists
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.compose_files import image
from tests.cloudly.given import UUID, Plane, code_of, report

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

NEWEST_FIRST = -1


def ban(name: str) -> dict[str, str]:
    return {"what": name, "reason": "it eats flash"}


Make = Callable[[int], Awaitable[object]]


async def walk(
    who: Operator, path: str, *, limit: int = 2, meanwhile: Make | None = None, **query: Any
) -> tuple[list[Any], int]:
    """All items of a list, page by page, and how many pages those were."""
    items: list[Any] = []
    pages, after = 0, None
    while True:
        more: dict[str, str] = {} if after is None else {"after": after}
        page = await who.get(path, limit=limit, **query, **more)
        assert len(page["items"]) <= limit
        items += page["items"]
        pages += 1
        assert pages < 100, "it goes round in circles"
        after = page["next"]
        if after is None:
            return items, pages
        if meanwhile is not None:
            await meanwhile(pages)


@pytest.mark.parametrize(
    ("path", "key", "order"),
    [
        ("/nodes", "node_id", NEWEST_FIRST),
        ("/fleets", "name", 1),
        ("/join-tokens", "name", NEWEST_FIRST),
        ("/releases", "version", NEWEST_FIRST),
        ("/publishers", "name", 1),
        ("/api-tokens", "name", NEWEST_FIRST),
        ("/channels", "name", 1),
        ("/channels/stable/releases", "version", NEWEST_FIRST),
        ("/rollouts", "version", NEWEST_FIRST),
        ("/bans", "version", NEWEST_FIRST),
    ],
)
async def test_every_list_shows_all_that_was_there_once_while_others_are_made(
    plane: Plane, path: str, key: str, order: int
) -> None:
    who = operator(plane, name="a-0")

    async def make(name: str) -> object:
        match path:
            case "/nodes":
                return await plane.device(name).enroll()
            case "/releases":
                return await who.release(name, image=image(name))
            case "/channels/stable/releases" | "/rollouts" | "/bans":
                await who.release(name, image=image(name))
                await plane.world.sleep(1)
                return await who.does(
                    "POST", path, {"release": name} if path != "/bans" else ban(name)
                )
            case "/join-tokens" | "/fleets" | "/publishers" | "/channels":
                return await who.does("POST", path, {"name": name})
            case _:
                return await who.does("POST", path, {"name": name, "role": "viewer"})

    if "stable" in path:
        await who.does("POST", "/channels", {"name": "stable"})
    there = [f"a-{number}" for number in range(1, 6)]
    for name in there:
        await make(name)

    items, pages = await walk(who, path, meanwhile=lambda page: make(f"z-{page}"))

    shown = [one[key] for one in items if one[key] in there]
    assert shown == there[::order]
    assert len({one[key] for one in items}) == len(items)
    assert pages > 2


async def test_transitions_come_in_pages_over_the_epochs(plane: Plane) -> None:
    device = await plane.device().enroll()
    for epoch in ("epoch-1", "epoch-2"):
        device.begins(epoch)
        for number in range(3):
            device.fact("app-update/1", f"s{number}", f"s{number + 1}")
        await device.ship()

    items, pages = await walk(operator(plane), f"/nodes/{UUID}/transitions")

    assert [(one["epoch_n"], one["n"]) for one in items] == [
        (epoch, n) for epoch in (2, 1) for n in (3, 2, 1)
    ]
    assert pages == 3


async def test_nodes_are_found_by_words_and_by_state_however_far_apart_they_are(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "WINDOW", 5)
    monkeypatch.setattr(nodes, "PART", 3)
    monkeypatch.setattr(nodes, "MOST_LOOKS", 2)
    who = operator(plane)
    for number in range(20):
        device = plane.device(f"node{number:02}", hostname=f"Kiosk_{number % 7}")
        await device.enroll()
        if number % 10 == 0:
            await device.beat(reported=report(degraded=["no disk"]))

    named, _ = await walk(who, "/nodes", search="kiosk_3")
    by_id, _ = await walk(who, "/nodes", search="node1")
    degraded, pages = await walk(who, "/nodes", state="degraded")
    both, _ = await walk(who, "/nodes", state="degraded", search="KIOSK_3")
    nothing, _ = await walk(who, "/nodes", search="%")

    assert [one["node_id"] for one in named] == ["node17", "node10", "node03"]
    assert len(by_id) == 10
    assert [one["node_id"] for one in degraded] == ["node10", "node00"]
    assert pages > 2  # empty pages lie between
    assert [one["node_id"] for one in both] == ["node10"]
    assert nothing == []  # what means something to the database means nothing here


async def test_a_node_is_found_by_each_state_that_it_can_be_in(plane: Plane) -> None:
    who = operator(plane)
    dark, late, sick, gone, asks, seen = [
        await plane.device(name).enroll()
        for name in ("offline", "late", "degraded", "revoked", "needs-operator", "online")
    ]
    await plane.device("new").enroll()
    await dark.beat()
    await plane.world.sleep(3600)
    await late.beat()
    await plane.world.sleep(300)
    for device in (gone, asks, seen):
        await device.beat()
    await sick.beat(reported=report(degraded=["no disk"]))
    await who.does("POST", "/nodes/revoked/revoke")
    plane.store.write_now(
        lambda db: (
            db.execute(
                "UPDATE node SET needs_operator='look' WHERE node_id='needs-operator'"
            ).rowcount
        )
    )

    for state in ("new", "online", "late", "offline", "degraded", "needs-operator", "revoked"):
        items, _ = await walk(who, "/nodes", state=state)
        assert [one["node_id"] for one in items] == [state]


async def test_a_filter_by_fleet_leaves_the_others_out_and_an_unknown_one_is_told(
    plane: Plane,
) -> None:
    who = operator(plane)
    await who.does("POST", "/fleets", {"name": "lobby"})
    for number in range(5):
        await plane.device(f"node{number}").enroll()
    for number in (1, 3, 4):
        await who.does("PUT", f"/nodes/node{number}/fleet", {"fleet": "lobby"})

    items, pages = await walk(who, "/nodes", fleet="lobby")

    assert [one["node_id"] for one in items] == ["node4", "node3", "node1"]
    assert pages == 2
    assert code_of(await who("GET", "/nodes", params={"fleet": "hall"})) == (404, "not-found")
    assert code_of(await who("GET", "/nodes", params={"state": "fine"})) == (422, "malformed")


async def test_a_list_shows_what_the_server_heard_and_has_not_saved_yet(plane: Plane) -> None:
    device = await plane.device().enroll()
    who = operator(plane)
    await device.beat()
    before = (await who.get("/nodes"))["items"][0]["last_seen_at_ms"]

    await plane.world.sleep(5)
    await device.beat()

    assert plane.rows("node_live")[0]["last_seen_at_ms"] == before
    assert (await who.get("/nodes"))["items"][0]["last_seen_at_ms"] == before + 5000
    assert (await who.get(f"/nodes/{UUID}"))["last_seen_at_ms"] == before + 5000


async def test_an_answer_that_the_client_has_is_not_sent_again(plane: Plane) -> None:
    who = operator(plane)
    first = await who("GET", "/fleets")
    tag = first.headers["etag"]

    for known in (tag, f'"x", W/{tag}', "*"):
        same = await who("GET", "/fleets", headers={"if-none-match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await who.does("POST", "/fleets", {"name": "lobby"})
    other = await who("GET", "/fleets", headers={"if-none-match": tag})

    assert other.status_code == 200
    assert other.headers["etag"] != tag
    assert "private" in other.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "/nodes",
        "/fleets",
        "/releases",
        "/join-tokens",
        "/api-tokens",
        "/rollouts",
        "/pins",
        "/bans",
    ],
)
@pytest.mark.parametrize("after", ["x", "-1", "1e3", str(2**64), "' OR 1=1"])
async def test_a_cursor_that_is_none_is_refused(plane: Plane, path: str, after: str) -> None:
    answer = await operator(plane)("GET", path, params={"after": after})

    assert code_of(answer) == (422, "malformed")
    assert after not in answer.text or len(after) < 3


@pytest.mark.parametrize("what", ["journal", "transitions", "gaps"])
@pytest.mark.parametrize(
    "after", ["x", "1", "1.", "1.x", "1.core.x", f"1.{2**63}", "1.core." + "9" * 19]
)
async def test_a_place_that_is_none_is_refused(plane: Plane, what: str, after: str) -> None:
    await plane.device().enroll()

    answer = await operator(plane)("GET", f"/nodes/{UUID}/{what}", params={"after": after})

    assert code_of(answer) == (422, "malformed")


def test_no_list_counts_rows_to_find_its_page() -> None:
    import inspect

    text = inspect.getsource(lists) + inspect.getsource(nodes)

    assert "LIMIT" in text
    assert "OFFSET" not in text.upper()
