"""Nodes as selectors see them: slice by slice, by what their journals prove."""

from __future__ import annotations

import pytest

from cloudly.rollouts.selector import NodeView, parse
from cloudly.store import fleets, node_views
from interfaces.world import now_ms
from tests.cloudly.given import UUID, Plane, commit_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"
MINUTE_MS = 60_000


def view(plane: Plane, node_id: str = UUID, *, later_ms: int = 0) -> NodeView:
    number, now = plane.node(node_id)["id"], now_ms(plane.world) + later_ms
    seen = plane.store.read_now(
        lambda db: node_views.one(db, number, now_ms=now, dark_after_ms=3 * MINUTE_MS)
    )
    assert seen is not None
    return seen


def slices(plane: Plane, *, after: int = 0, limit: int = 9, retired: bool = False) -> list[int]:
    now = now_ms(plane.world)
    some = plane.store.read_now(
        lambda db: node_views.slices(
            db, after_id=after, limit=limit, now_ms=now, dark_after_ms=1, retired=retired
        )
    )
    return [number for number, _ in some]


def change(plane: Plane, sentence: str, *values: object) -> None:
    plane.store.write_now(lambda db: db.execute(sentence, values).rowcount)


def crowd(plane: Plane, many: int) -> None:
    """Rows of nodes that never spoke."""
    plane.store.write_now(
        lambda db: db.executemany(
            "INSERT INTO node(node_id, hostname, device_type, agent_version, created_at_ms, labels)"
            " VALUES(?,'','pi','1',0,?)",
            [
                (f"{n:032x}", f'{{"site":"{"lab" if n % 7 == 0 else "field"}"}}')
                for n in range(many)
            ],
        )
    )


async def test_a_node_is_what_its_rows_say(plane: Plane) -> None:
    await (await plane.device().enroll()).beat()
    change(plane, """UPDATE node SET labels='{"site":"lab"}', device_type='pi'""")

    seen = view(plane)

    assert seen == NodeView(UUID, "default", {"site": "lab"}, "pi", "", "0.1.0", "idle")


async def test_its_version_is_what_its_journal_proved_and_not_what_it_says(plane: Plane) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "applying", "succeeded", deployment=first)
    plane.release("2.0.0", UUID)

    await device.beat(reported={"release": commit_of("2.0.0")})

    assert view(plane).version == "1.0.0"


async def test_a_node_that_proved_nothing_is_taken_at_its_word_if_that_is_a_release(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    plane.release("1.0.0")
    await device.beat(reported={"release": "of-some-other-plane"})
    unknown = view(plane).version

    await device.beat(reported={"release": commit_of("1.0.0")})

    assert (unknown, view(plane).version) == ("", "1.0.0")


async def test_its_state_follows_the_order_from_its_begin_to_its_end(plane: Plane) -> None:
    device = await plane.device().enroll()
    seen = [view(plane).state]

    first = plane.release("1.0.0", UUID)
    seen.append(view(plane).state)
    await device.tell("app-update/1", "applying", "succeeded", deployment=first)
    seen.append(view(plane).state)
    second = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "applying", "rollback-needed", deployment=second)
    seen.append(view(plane).state)
    await device.tell("app-update/2", "rolled-back", deployment=second)
    seen.append(view(plane).state)

    assert seen == ["idle", "updating", "idle", "updating", "failed"]


async def test_a_release_that_was_given_up_leaves_the_node_failed_until_the_next_order(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "applying", "succeeded", deployment=first)
    second = plane.release("2.0.0", UUID)
    await device.tell("app-update/2", "downloading", "failed", deployment=second)
    back = plane.node(UUID)["deployment"]
    on_the_way = view(plane).state
    await device.tell("app-update/3", "applying", "succeeded", deployment=back)
    given_up = view(plane).state

    third = plane.release("3.0.0", UUID)
    await device.tell("app-update/4", "applying", "succeeded", deployment=third)

    assert (on_the_way, given_up, view(plane).state) == ("updating", "failed", "idle")


async def test_silence_makes_dark_and_quarantine_counts_before_it(plane: Plane) -> None:
    await (await plane.device().enroll()).beat()
    await plane.device(OTHER).enroll()  # and never speaks

    just, dark = view(plane, later_ms=3 * MINUTE_MS), view(plane, later_ms=3 * MINUTE_MS + 1)
    never = view(plane, OTHER, later_ms=3 * MINUTE_MS + 1)
    change(plane, "UPDATE node SET quarantined_at_ms=1")

    assert (just.state, dark.state, never.state) == ("idle", "dark", "dark")
    assert view(plane, later_ms=3 * MINUTE_MS + 1).state == "quarantined"


async def test_slices_go_through_all_nodes_once(plane: Plane) -> None:
    crowd(plane, 10)

    first = slices(plane, limit=4)
    second = slices(plane, after=first[-1], limit=4)
    third = slices(plane, after=second[-1], limit=4)

    assert [len(first), len(second), len(third)] == [4, 4, 2]
    assert first + second + third == sorted({*first, *second, *third})
    assert slices(plane, after=third[-1]) == []


async def test_a_retired_node_is_in_no_slice_unless_it_is_asked_for(plane: Plane) -> None:
    crowd(plane, 3)
    change(plane, "UPDATE node SET retired_at_ms=1 WHERE node_id=?", f"{1:032x}")

    assert len(slices(plane)) == 2
    assert len(slices(plane, retired=True)) == 3


async def test_a_selector_finds_its_nodes_beyond_the_first_slice(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(plane, 30)
    plane.store.write_now(lambda db: fleets.create(db, "shops", 1))
    change(plane, "UPDATE node SET fleet=2 WHERE node_id IN (?,?)", f"{14:032x}", f"{15:032x}")
    monkeypatch.setattr(node_views, "SLICE", 5)

    def found(text: str) -> list[str]:
        return plane.store.read_now(
            lambda db: [
                one.node_id
                for _, one in node_views.selected(db, parse(text), now_ms=1, dark_after_ms=9)
            ]
        )

    assert found("label.site=lab") == [f"{n:032x}" for n in range(0, 30, 7)]
    assert found("fleet=shops,label.site=lab") == [f"{14:032x}"]
    assert len(found("")) == 30
