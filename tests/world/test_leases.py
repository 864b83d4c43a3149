"""An update lock of a neighbour and the rest of the agent: what waits for it, and goes on when it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from baserunner.locks.leases import Leases
from baserunner.orders import Order, OrderAnswer, OrderKind
from baserunner.orders import place as put_down
from baserunner.problems import LeaseRefused
from baserunner.why import Why, explain_all
from cloudly.reports import locks
from interfaces.local import Held, Release
from interfaces.world import new_id
from journal.facts import Fact
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import KEY, Place, a_place, commit_of
from tests.world.leasing import acquire, release, renew

Story = Callable[[Place], Awaitable[None]]
APPLIED = ["apply-requested", "applied", "health-passed"]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    async def run(story: Story) -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            await story(place)

    return lambda story: run_virtual(run, story)


Tell = Callable[[Story], None]


def why(place: Place, stream: str) -> Why:
    with open_reader(place.home) as reader:
        [answer] = explain_all(reader, stream)
    return answer


def at(place: Place, stream: str, kind: str) -> Fact:
    return next(fact for fact in place.facts(stream) if fact.kind == kind)


async def ask_supervisor(place: Place, method: str, path: str, body: object = None) -> Any:
    """As somebody else on the device does."""
    async with httpx.AsyncClient(
        transport=place.supervisor.transport(),
        base_url="http://supervisor",
        headers={"Authorization": f"Bearer {KEY}"},
    ) as client:
        answer = await client.request(method, path, json=body)
        return answer.json() if answer.content else None


def everything_below(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


async def staged_under_a_lease(place: Place, *, ttl_s: float = 600.0) -> Held:
    held = acquire(place, ttl_s=ttl_s)
    place.set_release("2.0.0")
    await place.until_state("app-update/2", "staged")
    await place.world.sleep(60)
    return held


# -- applying ------------------------------------------------------------------------------------


def test_an_update_is_staged_under_a_lease_and_applied_at_once_when_it_is_released(
    tell: Tell,
) -> None:
    async def story(place: Place) -> None:
        held = await staged_under_a_lease(place)
        assert place.state("app-update/2") == "staged"
        before_s = place.world.monotonic()

        release(place, held)
        await place.until_state("app-update/2", "applying", look_s=0.01)

        assert place.world.monotonic() - before_s < 0.5
        await place.until_state("app-update/2", "succeeded")
        assert place.kinds("app-update/2")[-3:] == APPLIED

    tell(story)


def test_it_is_applied_when_the_lease_of_a_dead_holder_ends_by_itself(tell: Tell) -> None:
    async def story(place: Place) -> None:
        await staged_under_a_lease(place, ttl_s=300)

        await place.until_state("app-update/2", "succeeded")

        over, intent = at(place, "lock/1", "expired"), at(place, "app-update/2", "apply-requested")
        assert over.mono_ms - at(place, "lock/1", "acquired").mono_ms == pytest.approx(
            300_000, abs=50
        )
        assert 0 <= intent.mono_ms - over.mono_ms <= 500

    tell(story)


def test_it_waits_for_the_last_of_several(tell: Tell) -> None:
    async def story(place: Place) -> None:
        first = await staged_under_a_lease(place)
        second = acquire(place, owner="restore", ttl_s=900)

        release(place, first)
        await place.world.sleep(200)
        assert place.state("app-update/2") == "staged"
        release(place, second)

        await place.until_state("app-update/2", "succeeded")

    tell(story)


def test_why_names_who_holds_the_update_up_and_until_when(tell: Tell) -> None:
    async def story(place: Place) -> None:
        held = await staged_under_a_lease(place)

        answer, own = why(place, "app-update/2"), why(place, "lock/1")

        assert answer.owner == own.owner == "onebox"
        assert "backup holds an update lock since 2026-11-23" in answer.waits_for
        assert "nightly backup" in answer.waits_for
        assert "nightly backup" in own.waits_for
        assert answer.until_ms == own.until_ms == own.since_ms + 600_000
        release(place, held)
        await place.until_state("app-update/2", "succeeded")

    tell(story)


def test_the_heartbeat_tells_the_same_without_reading_the_renewals(tell: Tell) -> None:
    async def story(place: Place) -> None:
        held = await staged_under_a_lease(place)
        await place.world.sleep(100)
        renew(place, held, ttl_s=700)

        with open_reader(place.home) as reader:
            read = explain_all(reader)
            known = explain_all(reader, held=place.leases.streams())

        assert known == read
        assert {one.owner for one in known} >= {"onebox"}

    tell(story)


def test_none_begins_from_the_intent_to_apply_until_the_update_has_proved_itself(
    tell: Tell,
) -> None:
    async def story(place: Place) -> None:
        refusals: dict[str, str] = {}

        def after_every_step(point: str) -> None:
            state = point.rpartition(":")[2]
            if not point.startswith("after-step:app-update:") or state in refusals:
                return
            try:
                held = acquire(place)
            except LeaseRefused as refused:
                refusals[state] = refused.code
            else:
                refusals[state] = ""
                release(place, held)

        place.set_release("2.0.0")
        place.points = after_every_step
        await place.until_state("app-update/2", "succeeded")

        assert refusals["applying"] == refusals["verifying"] == "locked-out"
        assert refusals["staged"] == refusals["downloading"] == ""
        place.points = lambda _: None
        assert acquire(place).lock.owner == "backup"

    tell(story)


def test_a_lease_that_begins_between_the_last_look_and_the_intent_is_respected(tell: Tell) -> None:
    async def story(place: Place) -> None:
        begun: list[Held] = []

        def just_before_the_fact(point: str) -> None:
            if point == "after-step:app-update:staged" and not begun:
                begun.append(acquire(place, ttl_s=120))

        place.points = just_before_the_fact
        place.set_release("2.0.0")
        await place.until_state("app-update/2", "staged")
        await place.world.sleep(60)

        assert begun
        assert place.state("app-update/2") == "staged"
        await place.until_state("app-update/2", "succeeded")
        assert at(place, "lock/1", "expired").n < at(place, "app-update/2", "apply-requested").n

    tell(story)


def test_a_lease_outlives_a_crash_of_the_agent_and_a_dead_one_does_not_outlive_its_time(
    tell: Tell,
) -> None:
    async def story(place: Place) -> None:
        await staged_under_a_lease(place, ttl_s=300)
        for _ in range(3):
            await place.cut_power_to_agent()
            place.start_agent()
            await place.world.sleep(30)
            assert place.state("app-update/2") == "staged"
        await place.cut_power_to_agent()
        await place.world.sleep(400)

        place.start_agent()
        await place.until_state("app-update/2", "succeeded")

        assert place.kinds("lock/1") == ["acquired", "expired"]
        assert at(place, "lock/1", "expired").n < at(place, "app-update/2", "apply-requested").n

    tell(story)


def test_a_lease_outlives_a_boot_of_the_host(tell: Tell) -> None:
    async def story(place: Place) -> None:
        held = await staged_under_a_lease(place, ttl_s=200)

        await place.reboot_host()
        await place.until(lambda: "resumed" in place.kinds("lock/1"))
        await place.world.sleep(60)

        assert place.state("app-update/2") in {"staged", "downloading"}
        assert {path.name for path in (place.root / "locks").iterdir()} == {
            "updates.lock",
            "resin-updates.lock",
        }
        release(place, held)
        await place.until_state("app-update/2", "succeeded")

    tell(story)


def test_the_supervisor_itself_does_not_apply_under_a_lease(tell: Tell) -> None:
    async def story(place: Place) -> None:
        held = await staged_under_a_lease(place)
        (place.root / "locks" / "updates.lock").unlink()

        await ask_supervisor(place, "POST", "/v1/update", {"cancel": True})
        await place.world.sleep(5)

        status = await ask_supervisor(place, "GET", "/v2/state/status")
        assert status["release"] == commit_of("1.0.0")
        assert {one["status"] for one in status["containers"]} == {"Running"}
        release(place, held)
        await place.until_state("app-update/2", "succeeded")

    tell(story)


def test_none_begins_before_a_rollback(tell: Tell) -> None:
    async def story(place: Place) -> None:
        place.set_release("2.0.0", behaviour="crash-after-start")
        await place.until_state("app-update/2", "rollback-needed", look_s=0.05)

        with pytest.raises(LeaseRefused, match="app-update/2 is rollback-needed"):
            acquire(place)
        await place.until_state("app-update/2", "rolled-back")

        assert acquire(place).lock.owner == "backup"

    tell(story)


def test_a_rollback_waits_for_a_lease_under_which_somebody_else_applied_by_force(
    tell: Tell,
) -> None:
    async def story(place: Place) -> None:
        held = acquire(place, ttl_s=3000)
        place.set_release("2.0.0", behaviour="crash-after-start")
        await place.until_state("app-update/2", "staged")
        await place.world.sleep(7)  # the Supervisor has found the lock, and sits out its back-off
        await ask_supervisor(place, "POST", "/v1/update", {"force": True, "cancel": True})
        await place.until_state("app-update/2", "rollback-needed")
        await place.world.sleep(300)

        assert place.state("app-update/2") == "rollback-needed"
        answer = why(place, "app-update/2")
        assert answer.owner == "onebox"
        assert "backup holds an update lock" in answer.waits_for
        assert "Cloudly to turn the target back" in answer.waits_for
        release(place, held)

        await place.until_state("app-update/2", "rolled-back")

    tell(story)


# -- rebooting -----------------------------------------------------------------------------------


def test_a_reboot_waits_for_a_lease_and_happens_when_it_ends(tell: Tell) -> None:
    async def story(place: Place) -> None:
        held, boots = acquire(place), place.world.boots

        place.order(OrderKind.REBOOT)
        await place.until_state("reboot/1", "waiting")
        await place.world.sleep(100)
        assert place.world.boots == boots
        answer = why(place, "reboot/1")
        assert answer.owner == "onebox"
        assert "nightly backup" in answer.waits_for
        release(place, held)

        await place.until(lambda: place.world.boots > boots)
        await place.until_state("reboot/1", "done")

    tell(story)


def test_a_reboot_does_not_wait_for_ever(tell: Tell) -> None:
    async def story(place: Place) -> None:
        boots = place.world.boots
        acquire(place, ttl_s=3600)
        place.order(OrderKind.REBOOT)
        await place.until_state("reboot/1", "waiting")
        await place.world.sleep(3000)
        acquire(place, owner="restore", ttl_s=3600)

        await place.until_state("reboot/1", "refused", within_s=700)

        assert "restore holds an update lock" in place.facts("reboot/1")[-1].values["reason"]
        assert place.world.boots == boots

    tell(story)


def test_none_begins_while_the_host_is_about_to_reboot(tell: Tell) -> None:
    async def story(place: Place) -> None:
        place.to_supervisor.plugged = False  # it cannot be told yet
        place.order(OrderKind.REBOOT)
        await place.until_state("reboot/1", "rebooting")

        with pytest.raises(LeaseRefused, match="reboot/1 is rebooting"):
            acquire(place)

        place.to_supervisor.plugged = True
        await place.until_state("reboot/1", "done")

    tell(story)


# -- an operator ---------------------------------------------------------------------------------


async def broken(place: Place, lock: str) -> OrderAnswer:
    order = Order(kind=OrderKind.BREAK_LOCK, by="uid 0", lock=lock, reason="it is urgent")
    answer_at = put_down(place.home, new_id(place.cloudly_world), order)
    await place.until(answer_at.exists)
    return OrderAnswer.model_validate_json(answer_at.read_bytes())


def test_an_operator_breaks_a_lease_and_the_update_goes_on(tell: Tell) -> None:
    async def story(place: Place) -> None:
        await staged_under_a_lease(place)

        answer = await broken(place, "lock/1")

        assert answer.done
        assert "the update lock of backup is broken" in answer.said
        await place.until_state("app-update/2", "succeeded")
        assert place.facts("lock/1")[-1].values == {"by": "uid 0", "reason": "it is urgent"}

    tell(story)


def test_breaking_what_is_not_there_says_so(tell: Tell) -> None:
    async def story(place: Place) -> None:
        answer = await broken(place, "lock/7")

        assert not answer.done
        assert "there is no update lock lock/7" in answer.said

    tell(story)


def test_cloudly_is_told_who_holds_the_update_up_and_no_longer_when_that_is_over(
    tell: Tell,
) -> None:
    async def story(place: Place) -> None:
        def locks_at_cloudly() -> tuple[str, ...]:
            return locks(place.reported())

        held = await staged_under_a_lease(place)
        await place.until(lambda: locks_at_cloudly() != ())

        [told] = locks_at_cloudly()
        assert told.startswith("backup since 2026-11-23")
        assert told.endswith(": nightly backup")
        assert any("backup holds an update lock" in words for words in place.node().waiting)
        release(place, held)
        await place.until(lambda: locks_at_cloudly() == ())

    tell(story)


def test_a_key_is_in_no_file_of_the_device_or_of_cloudly_and_in_no_line_of_the_log(
    tell: Tell, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(place: Place) -> None:
        caplog.set_level(logging.DEBUG)
        held = await staged_under_a_lease(place)
        key = held.key.get_secret_value()
        with pytest.raises(LeaseRefused):
            place.leases.release("0" * 32, Release(key=held.key))
        release(place, held)
        await place.until_state("app-update/2", "succeeded")
        await place.until(lambda: place.shipped_core() == len(place.core_on_device()))

        found = everything_below(tmp_path)
        assert held.lock.lock.encode() in found, "it is looked for where leases are"
        for form in (key, key[:20], bytes.fromhex(key).hex(" ")):
            assert form.encode() not in found
            assert form not in caplog.text
        assert bytes.fromhex(key) not in found

    tell(story)


def test_the_leases_of_the_agent_are_those_of_the_journal(tell: Tell) -> None:
    async def story(place: Place) -> None:
        assert isinstance(place.leases, Leases)
        acquire(place)

        assert place.state("lock/1") == "held"

    tell(story)
