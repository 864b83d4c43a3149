"""What Cloudly will never get is on record: which facts, how many of which kind, and why."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloudly.cli import app as cli
from cloudly.export import verify
from cloudly.gaps import explain, without
from cloudly.store.story import branch_gaps
from interfaces.journal import Gap
from tests.cloudly.given import UUID, Device, Plane, code_of
from tests.cloudly.test_restore import back_up, restore

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


@pytest.fixture
async def device(plane: Plane) -> Device:
    device = await plane.device().enroll()
    for number in range(1, 11):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}")
    return device


def gaps(plane: Plane, **where: Any) -> list[tuple[int, int, str]]:
    rows = [row for row in plane.rows("lane_gap") if where.items() <= row.items()]
    rows.sort(key=lambda row: (row["epoch_n"], row["lane"], row["first_seq"]))
    return [(row["first_seq"], row["last_seq"], row["why"]) for row in rows]


def gap(first: int, last: int, why: str = "space", **more: Any) -> dict[str, Any]:
    return {"first_seq": first, "last_seq": last, "why": why} | more


async def test_a_gap_is_stored_with_what_the_device_knows_of_it(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 2))
    told = gap(3, 6, kinds={"line": 3, "offered": 1}, since_ms=5, until_ms=9)

    answer = await device.ship(device.batch(7), oldest=7, gaps=[told])

    assert answer.json()["ack"]["seq"] == 10
    assert gaps(plane) == [(3, 6, "space")]
    row = plane.rows("lane_gap")[0]
    assert json.loads(row["kinds"]) == {"line": 3, "offered": 1}
    assert (row["since_ms"], row["until_ms"]) == (5, 9)
    assert row["last_hash"] == device.hash_at("core", 6)  # so that the chain can be checked on


async def test_what_no_reason_covers_is_unexplained(plane: Plane, device: Device) -> None:
    told = [gap(2, 3, "age"), gap(5, 5, "damage")]

    await device.ship(device.batch(8), oldest=8, gaps=told)

    assert gaps(plane) == [
        (1, 1, "unexplained"),
        (2, 3, "age"),
        (4, 4, "unexplained"),
        (5, 5, "damage"),
        (6, 7, "unexplained"),
    ]


async def test_facts_that_the_device_itself_calls_lost_are_a_gap_wherever_they_lie(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 2))

    without_words = await device.ship(device.batch(5))
    partly = await device.ship(device.batch(5), gaps=[gap(3, 3)])
    wholly = await device.ship(device.batch(5), gaps=[gap(3, 4, "damage")])

    assert code_of(without_words) == (409, "gap")
    assert code_of(partly) == (409, "gap")
    assert wholly.json()["ack"]["seq"] == 10
    assert gaps(plane) == [(3, 4, "damage")]


async def test_a_lane_of_which_nothing_is_left_is_acked_to_its_end(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 2))

    answer = await device.ship(device.batch(11), oldest=11, gaps=[gap(3, 10)])
    device.fact("app-update/1", "s10", "s11")
    after = await device.ship(device.batch(11), oldest=11)

    assert answer.json()["ack"]["seq"] == 10
    assert after.json()["ack"]["seq"] == 11
    assert gaps(plane) == [(3, 10, "space")]


NONSENSE: list[Any] = [
    [gap(6, 3)],
    [gap(0, 3)],
    [gap(1, 2**63)],
    [gap(1, 2**53)],
    [gap(-5, -1)],
    [gap(1, 3, ""), gap(2, 9, "x" * 500)],
    [gap(1, 3, kinds={"line": 10**30, "": 1})],
    [gap(1, 3, kinds={str(n): n for n in range(51)})],
    [gap(1, 3, since_ms=2**63)],
    [gap(1, 5), gap(1, 5), gap(2, 4, "age"), gap(5, 6, "disk")],
    [gap(n, n) for n in range(1, 34)],
    [[], None, "gap", {"first_seq": "one"}],
    "gaps",
    {"first_seq": 1},
    None,
    7,
]


@pytest.mark.parametrize("told", NONSENSE, ids=range(len(NONSENSE)))
async def test_nonsense_about_a_gap_stops_no_queue_and_every_fact_is_accounted_for(
    plane: Plane, device: Device, told: Any
) -> None:
    answer = await device.ship(device.batch(7), oldest=7, gaps=told)

    assert answer.status_code == 200, answer.text
    assert answer.json()["ack"]["seq"] == 10
    covered = [seq for first, last, _ in gaps(plane) for seq in range(first, last + 1)]
    assert covered == [1, 2, 3, 4, 5, 6]
    assert (await device.ship(device.batch(7), oldest=7, gaps=told)).status_code == 200


async def test_a_word_that_cloudly_does_not_know_is_kept(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(4), oldest=4, gaps=[gap(1, 3, "eaten-by-a-bear")])

    assert gaps(plane) == [(1, 3, "eaten-by-a-bear")]


async def test_a_device_flashed_again_leaves_what_cloudly_only_heard_of_as_lost_with_the_disk(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()

    await plane.device(epoch="epoch-2").enroll()

    assert gaps(plane, epoch_n=1) == [(5, 10, "disk")]
    first, second = plane.rows("epoch")
    assert first["closed_at_ms"] is not None
    assert (first["why"], second["why"]) == ("first", "enrolled")


async def test_what_was_only_heard_of_survives_a_restart(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()
    device.fact("app-update/1", "s10", "s11")
    await device.beat()  # changes nothing: only in memory

    device.plane = later = plane.again()
    heard = {one["lane"]: one for one in (await device.beat()).json()["heard"]}

    assert heard["core"]["seq"] == 11
    later.end()


async def salvage(device: Device, **lanes: Any) -> None:
    began = {
        "why": "salvaged",
        "from": "epoch-1",
        "problem": "page 7 of the journal is all zeros",
        "kept_in": "damaged-1",
        "lanes": lanes,
        "carried": {"core": 3, "log": 0},
    }
    device.begins("epoch-2", **began)
    for number in (8, 9):
        device.fact("app-update/1", f"s{number}", f"s{number + 1}")
    answer = await device.ship()
    assert answer.status_code == 200, answer.text


async def test_a_salvaged_journal_says_what_of_the_one_before_is_lost(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()
    before = gaps(plane)

    await salvage(device, core={"head": 9, "acked": 4, "carried": [8, 9], "lost": [[5, 7]]})

    assert before == []
    assert gaps(plane, epoch_n=1) == [(5, 7, "damage"), (10, 10, "disk")]
    epoch = plane.rows("epoch")[1]
    assert (epoch["why"], epoch["predecessor"], epoch["carried_core"]) == ("salvaged", "epoch-1", 3)
    assert "all zeros" in epoch["problem"]


async def test_until_the_device_says_what_it_carried_over_all_that_was_heard_of_is_lost(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()
    device.epoch = "epoch-2"

    await device.beat(reported={"journal": []})
    provisional = gaps(plane, epoch_n=1)
    device.epoch = "epoch-1"
    await salvage(device, core={"head": 10, "acked": 4, "carried": [5, 10], "lost": []})

    assert provisional == [(5, 10, "disk")]
    assert gaps(plane) == []


@pytest.mark.parametrize(
    ("why", "word"), [("tail-lost", "disk"), ("forked", "restore"), ("restored", "restore")]
)
async def test_the_end_that_a_journal_lost_is_a_gap_with_the_reason_of_its_successor(
    plane: Plane, device: Device, why: str, word: str
) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()

    note = {
        "why": why,
        "from": "epoch-1",
        "lanes": {"core": {"head": 6, "acked": 4, "carried": [5, 6]}},
    }
    await device.begins("epoch-2", **note).ship()

    assert gaps(plane, epoch_n=1) == [(7, 10, word)]


async def test_what_the_device_dropped_itself_keeps_its_own_reason(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 2))
    await device.beat()
    core = {"head": 10, "acked": 2, "carried": [9, 10], "lost": [[3, 8]]}

    await salvage(device, core=core | {"dropped": [gap(2, 6, kinds={"line": 4}), gap(6, 6, "age")]})

    assert gaps(plane, epoch_n=1) == [(3, 6, "space"), (7, 8, "damage")]


BRANCH = {"head": 8, "hash": "ab" * 32, "acked": 2, "carried": [7, 8], "lost": [[3, 6]]}


@pytest.mark.parametrize(
    ("why", "core", "shown"),
    [
        ("tail-lost", BRANCH, [(3, 6)]),
        ("tail-lost", BRANCH | {"hash": None}, []),
        ("tail-lost", BRANCH | {"head": 12}, []),
        ("fenced", BRANCH | {"head": 12}, [(3, 6)]),
        ("fenced", BRANCH | {"lost": [[3, 30]], "head": 12}, [(3, 10)]),
    ],
    ids=["another fact at its end", "no hash", "further than cloudly", "fenced", "clipped"],
)
async def test_what_a_device_lost_of_its_own_beside_another_writers_facts_is_shown(
    plane: Plane, device: Device, why: str, core: dict[str, Any], shown: list[tuple[int, int]]
) -> None:
    await device.ship()
    dropped = [gap(*core["lost"][0], kinds={"line": 4})]

    note = {"why": why, "from": "epoch-1", "lanes": {"core": core | {"dropped": dropped}}}
    await device.begins("epoch-2", **note).ship()

    told = plane.store.read_now(lambda db: branch_gaps(db, 1))
    assert [(one["first_seq"], one["last_seq"]) for one in told] == shown
    assert all((one["why"], one["epoch_n"]) == ("space", 1) for one in told)
    page = (await plane.client.get(f"/nodes/{UUID}")).text
    assert ("beside another writer" in page) is bool(shown)
    assert all(
        check.problems == [] for check in plane.store.read_now(lambda db: list(verify(db, 1)))
    )


@pytest.mark.parametrize(
    ("why", "first", "shown"),
    [("space", 2, [(2, 4)]), ("age", 1, [(1, 4)]), ("acked-before", 1, []), ("space", 5, [])],
)
async def test_what_was_dropped_before_its_ack_is_shown_where_cloudly_has_facts_of_its_numbers(
    plane: Plane, device: Device, why: str, first: int, shown: list[tuple[int, int]]
) -> None:
    await device.ship(device.batch(1, 4))

    told = {"oldest": 7, "gaps": [gap(first, 6, why)]}
    for _ in range(2):  # the answer is lost, and it says so again
        await device.ship(device.batch(7) | told)

    beside = plane.store.read_now(lambda db: branch_gaps(db, 1))
    assert [(one["first_seq"], one["last_seq"]) for one in beside] == shown
    assert gaps(plane, epoch_n=1) == [(5, 6, why)]
    page = (await plane.client.get(f"/nodes/{UUID}")).text
    assert ("maybe another writer" in page) is bool(shown)


async def test_the_same_facts_under_the_same_numbers_are_no_branch(
    plane: Plane, device: Device
) -> None:
    await device.ship()
    core = BRANCH | {"hash": device.hash_at("core", 8).hex()}

    note = {"why": "fenced", "from": "epoch-1", "lanes": {"core": core}}
    await device.begins("epoch-2", **note).ship()

    assert plane.store.read_now(lambda db: branch_gaps(db, 1)) == []


async def test_an_epoch_that_never_came_is_named_by_the_one_that_follows_it(
    plane: Plane, device: Device
) -> None:
    await device.ship()

    await device.begins("epoch-3", why="salvaged", **{"from": "epoch-2"}).ship()

    words = "of epoch epoch-2, which came before it, Cloudly has nothing"
    page = (await plane.client.get(f"/nodes/{UUID}")).text
    assert page.count(words) == 1
    place = ["--data-dir", str(plane.directory)]
    told = CliRunner().invoke(cli, ["node", "gaps", UUID, *place])
    assert words in told.output
    told = CliRunner().invoke(cli, ["node", "gaps", UUID, "--json", *place])
    assert [(one["epoch_n"], one["why"]) for one in json.loads(told.output)] == [(2, "hole")]
    assert words in CliRunner().invoke(cli, ["node", "journal", UUID, *place]).output

    await device.begins("epoch-4", why="salvaged", **{"from": "epoch-3"}).ship()
    assert (await plane.client.get(f"/nodes/{UUID}")).text.count("Cloudly has nothing") == 1


NOTES: list[Any] = [
    {},
    {"why": "fenced", "from": "epoch-1", "lanes": {"core": {"hash": "zz", "lost": [[1, 9]], "dropped": "all"}}},
    {"why": "fenced", "from": "epoch-1", "lanes": {"core": {"hash": 7, "head": 12, "lost": [[1, 9]], "dropped": [
        None, [], {"first_seq": 1, "last_seq": 2**70, "why": "space"},
        {"first_seq": 1, "last_seq": 2, "why": 7}, gap(9, 2),
        gap(5, 9, kinds={"x": 2**70, "y": "many", "": -1}, since_ms=2**70, until_ms="then")]}}},
    {"why": 7, "from": ["epoch-1"], "lanes": [1], "carried": "all"},
    {"why": "salvaged", "from": "epoch-1", "lanes": {"core": {"lost": [[9, 5], [0, 3], [5, 2**63]]}}},
    {"why": "salvaged", "from": "epoch-1", "lanes": {"core": {"head": 2**63, "carried": [1, 2**63]}}},
    {"why": "x" * 5000, "from": "epoch-1", "lanes": {"core": {"lost": [[5, 7], [6, 9], [5, 5]]}}},
    {"why": "salvaged", "from": "epoch-2", "lanes": {}},
    {"why": "salvaged", "from": "unheard-of", "lanes": {}},
    {"why": "salvaged", "from": "epoch-1", "lanes": {"core": {"lost": [[n, n] for n in range(3000)]}}},
]  # fmt: skip


@pytest.mark.parametrize("note", NOTES, ids=range(len(NOTES)))
async def test_nonsense_about_the_epoch_before_does_no_harm(
    plane: Plane, device: Device, note: Any
) -> None:
    await device.ship(device.batch(1, 4))
    await device.beat()

    answer = await device.begins("epoch-2", **({"why": "", **note})).ship()

    assert answer.status_code == 200, answer.text
    told = gaps(plane, epoch_n=1)
    assert all(first <= last for first, last, _ in told)
    assert all(one[1] < two[0] for one, two in pairwise(told))
    if note.get("lanes") != {"core": {"head": 2**63, "carried": [1, 2**63]}}:
        assert {seq for first, last, _ in told for seq in range(first, last + 1)} >= set(
            range(5, 11)
        )


async def test_what_a_restored_cloudly_lost_is_shipped_again_and_what_is_gone_by_then_is_said(
    directory: Path, tmp_path: Path
) -> None:
    plane = Plane.begin(directory)
    device = await plane.device().enroll()
    for number in range(1, 11):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}")
    await device.ship(device.batch(1, 2))
    back_up(plane, tmp_path / "backup.db")
    await device.ship(device.batch(3))
    before = plane.store.incarnation

    device.plane = plane = restore(plane, tmp_path / "backup.db")
    acks = {ack["lane"]: ack["seq"] for ack in (await device.beat()).json()["acks"]}
    answer = await device.ship(
        device.batch(7), oldest=7, incarnation=before, gaps=[gap(3, 6, "acked-before")]
    )

    assert acks["core"] == 2
    assert answer.json()["ack"]["seq"] == 10
    assert answer.json()["incarnation"] != before
    assert gaps(plane) == [(3, 6, "acked-before")]
    assert plane.node(UUID)["needs_operator"] is None
    plane.end()


async def test_an_epoch_that_a_restored_cloudly_never_heard_of_may_begin_in_its_middle(
    directory: Path, tmp_path: Path
) -> None:
    plane = Plane.begin(directory)
    device = await plane.device().enroll()
    back_up(plane, tmp_path / "backup.db")
    device.begins("epoch-2", why="tail-lost", **{"from": "epoch-1"})
    for number in range(1, 6):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}")
    await device.ship()

    device.plane = plane = restore(plane, tmp_path / "backup.db")
    answer = await device.ship(device.batch(4), oldest=4, gaps=[gap(1, 3, "acked-before")])

    assert answer.json()["ack"]["seq"] == 6
    assert gaps(plane, epoch_n=2) == [(1, 3, "acked-before")]
    plane.end()


ranges = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(ranges, st.lists(ranges, max_size=8))
def test_every_missing_fact_is_in_exactly_one_range(
    missing: tuple[int, int], told: list[tuple[int, int]]
) -> None:
    first, last = min(missing), max(missing)
    words = [Gap(first_seq=min(one), last_seq=max(one), why="space") for one in told]

    parts = explain(first, last, words)

    seqs = [seq for part in parts for seq in range(part.first_seq, part.last_seq + 1)]
    assert seqs == list(range(first, last + 1))
    named = {seq for one in told for seq in range(min(one), max(one) + 1)}
    for part in parts:
        inside = set(range(part.first_seq, part.last_seq + 1))
        assert inside <= named if part.told else not inside & named


@given(ranges, st.lists(ranges, max_size=8))
def test_what_is_accounted_for_and_what_is_left_make_the_whole(
    whole: tuple[int, int], known: list[tuple[int, int]]
) -> None:
    first, last = min(whole), max(whole)
    spans = [(min(one), max(one)) for one in known]

    left = [seq for a, b in without(first, last, spans) for seq in range(a, b + 1)]

    named = {seq for a, b in spans for seq in range(a, b + 1)}
    assert left == [seq for seq in range(first, last + 1) if seq not in named]
