"""Each prefix of a finished journal resumes to the same story: nothing that matters is remembered elsewhere."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import anyio
import httpx
import pytest

from baserunner.app_update import steps
from cloudly.store.sql import Connection
from journal.facts import Lane
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import Place, a_place

UPDATED = {"enrollment/1": "enrolled", "app-update/1": "succeeded"}
ROLLED_BACK = {**UPDATED, "app-update/2": "rolled-back"}


def keep_the_journal_at_home(place: Place) -> None:
    """Cloudly takes no journal: what it has would show that the tail was cut, and then no update is admitted."""
    inner = place.to_cloudly.inner

    class Busy(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/journal"):
                return httpx.Response(503, stream=httpx.ByteStream(b""))
            return await inner.handle_async_request(request)

    place.to_cloudly.inner = Busy()


async def an_update(place: Place) -> None:
    place.start_agent()
    await place.until_state("enrollment/1", "enrolled")
    place.set_release("1.0.0")
    await place.until_state("app-update/1", "succeeded")


async def an_update_and_a_rollback(place: Place) -> None:
    await an_update(place)
    place.set_release("1.1.0", behaviour="crash-after-start")
    await place.until_state("app-update/2", "rolled-back")


def core_facts(home: Path) -> int:
    with open_reader(home) as reader:
        return reader.head(Lane.CORE).seq


def first_of(home: Path, kind: str) -> int:
    with open_reader(home) as reader:
        return next(fact.seq for fact in reader.facts(lane=Lane.CORE) if fact.kind == kind)


def cut_after(place: Place, whole: Path, keep: int) -> None:
    """A new data directory with the journal as it was after its `keep`-th core fact."""
    place.lives += 1
    shutil.copytree(whole, place.data)
    database = sqlite3.connect(place.home / "journal.db")
    found = database.execute("SELECT coalesce(max(n), 0) FROM core WHERE seq <= ?", (keep,))
    n = found.fetchone()[0]
    with database:
        for lane in Lane:
            cut_lane(database, lane, n)
    database.close()


def cut_lane(database: sqlite3.Connection, lane: Lane, n: int) -> None:
    database.execute(f"DELETE FROM {lane} WHERE n > ?", (n,))  # noqa: S608 - one of two names
    found = database.execute(f"SELECT coalesce(max(seq), 0) FROM {lane}")  # noqa: S608 - the same
    head = found.fetchone()[0]
    database.execute("DELETE FROM stream WHERE lane = ? AND first_seq > ?", (lane, head))
    database.execute(
        "UPDATE stream SET last_seq = NULL WHERE lane = ? AND last_seq > ?", (lane, head)
    )
    # What Cloudly had acked by then is not known any more: nothing, to be on the safe side.
    database.execute(
        "UPDATE cursor SET (seq, hash) = (SELECT seq, hash FROM base WHERE lane = cursor.lane)"
    )


def forget_later_epochs(place: Place) -> None:
    """Cloudly is as it was: an earlier prefix that lost its tail has begun another epoch, which fences this one."""

    def forget(db: Connection) -> None:
        db.execute("DELETE FROM lane_gap")
        for table in ("lane", "journal_chunk", "transition", "stream"):
            db.execute(f"DELETE FROM {table} WHERE epoch_n > 1")  # noqa: S608 - names of ours
        db.execute("DELETE FROM epoch WHERE n > 1")
        db.execute("UPDATE epoch SET closed_at_ms = NULL")
        db.execute("UPDATE voice SET epoch_n = 1, writer = NULL")

    place.store.write_now(forget)


def ends(home: Path) -> dict[str, str]:
    """Where enrollments and updates stand, in the order of their first facts."""
    with open_reader(home) as reader:
        return {
            info.name: info.state
            for info in reader.streams()
            if info.name.startswith(("enrollment", "app-update"))
        }


async def resume_each(
    place: Place, prefixes: range, golden: dict[str, str], *, within_s: float = 900
) -> list[str]:
    """What went wrong, prefix by prefix; empty when every one of them resumes to the golden end."""
    await place.stop_agent()
    whole = place.data
    wrong = []
    for keep in prefixes:
        cut_after(place, whole, keep)
        forget_later_epochs(place)
        assert core_facts(place.home) == keep
        told = place.cancels()
        place.start_agent()
        with anyio.move_on_after(within_s):
            while ends(place.home) != golden:
                await place.world.sleep(1)
        await place.stop_agent()
        if ends(place.home) != golden:
            wrong.append(f"after {keep} facts: {ends(place.home)}")
        if place.cancels() > told + 1:
            wrong.append(f"after {keep} facts: told {place.cancels() - told} times")
    return wrong


def test_each_prefix_of_an_update_resumes_to_the_same_story(tmp_path: Path) -> None:
    async def story() -> list[str]:
        async with a_place(tmp_path) as place:
            keep_the_journal_at_home(place)
            await an_update(place)
            return await resume_each(place, range(core_facts(place.home)), UPDATED)

    assert run_virtual(story) == []


def test_each_prefix_of_a_rollback_resumes_to_the_same_story(tmp_path: Path) -> None:
    async def story() -> list[str]:
        async with a_place(tmp_path) as place:
            await an_update_and_a_rollback(place)
            begin, end = first_of(place.home, "health-failed"), core_facts(place.home)
            assert end - begin == 2
            return await resume_each(place, range(begin, end), ROLLED_BACK)

    assert run_virtual(story) == []


def test_an_agent_that_does_not_look_before_it_acts_turns_this_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> list[str]:
        async with a_place(tmp_path) as place:
            await an_update(place)
            applying = first_of(place.home, "apply-requested")
            monkeypatch.setattr(steps, "is_applied", lambda *_: False)
            return await resume_each(place, range(applying, applying + 1), UPDATED, within_s=120)

    assert len(run_virtual(story)) == 1
