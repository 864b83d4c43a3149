"""A bounded share of `make fleet`: the same code with fewer devices, and a verdict that can be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cloudly.rollouts.counts import Outcome
from simulators.demo.script import Verdict
from tests.fleet.accounts import NEVER_ADMITTED, Accounts, Scene, account
from tests.fleet.cloud import commit_of
from tests.fleet.fates import Fate
from tests.fleet.run import Run, run
from tests.fleet.scenes import BAD, GOOD, Asked, Played, Story, fates
from tests.fleet.verdict import check_false_halts, faults, judge, lines
from tests.fleet.witness import Witness

pytestmark = pytest.mark.slow

DEVICES, SEED = 100, 5
ASKED = Asked(DEVICES, SEED, rate=0.25, base_rate=0.03)
"""More bad ones than in a real fleet: a small one has to halt too, and has to know each kind of end."""
Tamper = Callable[[Story, Scene, list[Witness]], None]


def forget_a_device(_story: Story, _scene: Scene, devices: list[Witness]) -> None:
    devices.pop()


def lose_a_grant(story: Story, scene: Scene, _devices: list[Witness]) -> None:
    one = _one(story, scene, "succeeded")
    _write(story, "DELETE FROM rollout_grant WHERE node=?", one)


def count_a_failure_as_a_success(story: Story, scene: Scene, _devices: list[Witness]) -> None:
    one = _one(story, scene, "rolled_back")
    _write(story, "UPDATE rollout_grant SET outcome='succeeded' WHERE node=?", one)


def lose_a_batch(story: Story, _scene: Scene, _devices: list[Witness]) -> None:
    _write(story, "DELETE FROM journal_chunk WHERE id=?", _batch(story))


def keep_a_batch_twice(story: Story, _scene: Scene, _devices: list[Witness]) -> None:
    _write(
        story,
        "INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events)"
        " SELECT node, epoch_n, lane, first_seq+1, last_seq, received_at_ms, opaque, events FROM journal_chunk"
        " WHERE id=?",
        _batch(story),
    )


def run_something_else(_story: Story, scene: Scene, devices: list[Witness]) -> None:
    place = next(at for at, one in enumerate(devices) if one.running == scene.image)
    devices[place] = replace(devices[place], running="")


# fmt: off
TAMPERINGS: dict[Tamper, str] = {
    forget_a_device:              "a node of no device",
    lose_a_grant:                 "is never admitted: its journal says 'succeeded'",
    count_a_failure_as_a_success: "is succeeded: its journal says 'rollback-needed'",
    lose_a_batch:                 "is not what Cloudly has",
    keep_a_batch_twice:           "came after",
    run_something_else:           "is succeeded: its Supervisor runs nothing",
}
# fmt: on
def _one(story: Story, scene: Scene, outcome: str) -> int:
    query = "SELECT node FROM rollout_grant WHERE rollout=? AND outcome=? LIMIT 1"
    return int(story.cloud.rows(query, scene.rollout, outcome)[0]["node"])


def _batch(story: Story) -> int:
    """One of more than one fact."""
    query = "SELECT min(id) AS id FROM journal_chunk WHERE lane='core' AND last_seq>first_seq"
    return int(story.cloud.rows(query)[0]["id"])


def _write(story: Story, query: str, *values: object) -> None:
    database: Any = story.cloud.store.database
    assert database._connection.execute(query, values).rowcount == 1


@contextmanager
def undone(story: Story) -> Iterator[None]:
    """What is written meanwhile is as before afterwards."""
    database: Any = story.cloud.store.database
    database._connection.execute("BEGIN")
    try:
        yield
    finally:
        database._connection.execute("ROLLBACK")


@dataclass
class Seen:
    done: Run
    tampered: dict[Tamper, Accounts]
    """What the accounts were then, after the good rollout."""

    def of(self, version: str) -> Played:
        return next(one for one in self.done.played if one.version == version)

    def with_bad(self, **changes: Any) -> Run:
        """The same run with a rollout of the bad release that went another way."""
        bad = replace(self.of(BAD), **changes)
        return replace(self.done, played=[self.of(GOOD), bad])


def play() -> Seen:
    tampered: dict[Tamper, Accounts] = {}

    def look(story: Story, scene: Scene, devices: list[Witness]) -> None:
        for tamper in TAMPERINGS if scene.commit == commit_of(GOOD) else ():
            with undone(story):
                seen = list(devices)
                tamper(story, scene, seen)
                tampered[tamper] = account(story.cloud, seen, scene, DEVICES)

    print(f"seed {SEED}")  # noqa: T201 - whoever reads a failure needs it
    return Seen(run(ASKED, print, look), tampered)


def broken(done: Run) -> list[str]:
    return [promise for kept, promise in judge(done).seen if not kept]


def test_a_fleet_is_played_and_its_verdict_can_be_broken(subtests: pytest.Subtests) -> None:
    """One test, because who runs tests side by side would play the fleet once in each process."""
    seen = play()
    print("\n".join([*lines(judge(seen.done)), *faults(seen.done)]))  # noqa: T201

    with subtests.test("every promise is kept"):
        assert broken(seen.done) == []
    with subtests.test("the good release reaches everybody, and the bad one few"):
        good, bad = seen.of(GOOD), seen.of(BAD)
        assert good.accounts.rows[NEVER_ADMITTED] == 0
        assert good.accounts.rows[Outcome.SUCCEEDED] > 0.9 * DEVICES
        assert bad.accounts.rows[NEVER_ADMITTED] > 0
        assert bad.ended.counts.granted < DEVICES
        assert bad.accounts.turned_back > 0
    with subtests.test("every kind of end is among them"):
        rows = seen.of(GOOD).accounts.rows + seen.of(BAD).accounts.rows
        assert set(rows) >= {"succeeded", "rolled_back", "failed", "dark", NEVER_ADMITTED}
    for tamper, fault in TAMPERINGS.items():
        with subtests.test("what does not add up is found", tamper=tamper.__name__):
            accounts = seen.tampered[tamper]
            assert any(fault in each for each in accounts.faults), accounts.faults
            assert not accounts.is_settled
    with subtests.test("a device that is in no row breaks the verdict"):
        missing = seen.with_bad(accounts=seen.tampered[forget_a_device])
        assert any("every device is accounted for" in promise for promise in broken(missing))
    for name, changed in too_late(seen).items():
        with subtests.test("a rollout that does not stop in time breaks the verdict", how=name):
            assert broken(changed) != []
    with subtests.test("a run without the bad rollout breaks the verdict"):
        assert broken(replace(seen.done, played=[seen.of(GOOD)])) != []


def too_late(seen: Seen) -> dict[str, Run]:
    ended = seen.of(BAD).ended
    last = ended.slices[-1]
    more = replace(last, counts=last.counts.plus({"granted": 30, "failed": 30}))
    later = replace(ended, slices=(*ended.slices[:-1], more))
    return {
        "never halted": seen.with_bad(ended=replace(ended, state="completed"), admitted_after=0),
        "admitted after the halt": seen.with_bad(ended=ended, admitted_after=1),
        "halted too late": seen.with_bad(ended=later, admitted_after=0),
    }


@pytest.mark.parametrize(("halts", "kept"), [(0, True), (9, True), (10, False)])
def test_one_false_halt_in_a_hundred_is_too_many(halts: int, kept: bool) -> None:  # noqa: FBT001
    verdict = Verdict()

    check_false_halts(verdict, halts, 1000)

    assert verdict.kept is kept


def test_who_fares_badly_is_drawn_from_the_seed() -> None:
    drawn = fates(Asked(1000, 1, 0.03))
    bad = [number for number in range(1000) if drawn.of(number, commit_of(BAD)) is not Fate.WELL]

    assert 15 <= len(bad) <= 50
    again = fates(Asked(1000, 1, 0.03))
    assert [drawn.of(number, commit_of(BAD)) for number in bad] == [
        again.of(number, commit_of(BAD)) for number in bad
    ]


def test_with_the_devices_in_other_processes_the_verdict_is_the_same() -> None:
    done = run(replace(ASKED, devices=30, rate=0.4), print, workers=2)

    print("\n".join([*lines(judge(done)), *faults(done)]))  # noqa: T201
    assert broken(done) == []
