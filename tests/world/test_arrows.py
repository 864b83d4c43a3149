"""Every arrow of every chart is taken by a story here: one that nobody takes is a mistake, or untested."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from baserunner.enrollment.steps import READMITTED_LOOK_S
from baserunner.identity import read_identity, write_identity
from baserunner.machines import MACHINES
from baserunner.orders import OrderKind
from baserunner.spare_tokens import without_next
from cloudly.store import node_standing
from interfaces.desired import UpdatePolicy
from journal.chart import Arrow, Chart
from journal.reader import open_reader
from simulators.supervisor.engine import Behaviour
from simulators.world import run_virtual
from tests.world.kit import POLICY, Instead, Place, a_place
from tests.world.leasing import acquire, release, renew

Story = Callable[[Place], Awaitable[None]]
Taken = tuple[str, str, str, str]
"""Machine, kind, src, dst."""

STORIES: list[tuple[Story, set[Taken]]] = []
"""Each with the arrows that it promises to take."""


def charts() -> list[Chart]:
    return [known.machine.chart for known in MACHINES.values()]


def arrows_of(charts: list[Chart]) -> set[Taken]:
    return {(c.name, a.kind, a.src, a.dst) for c in charts for a in c.arrows}


def arrows_taken(place: Place) -> set[Taken]:
    """In all journals that this story left behind."""
    taken = set()
    for file in place.root.glob("**/journal.db"):
        with open_reader(file.parent) as reader:
            taken |= {
                (fact.stream.partition("/")[0], fact.kind, fact.src, fact.dst)
                for fact in reader.facts()
                if not fact.is_note
            }
    return taken


def takes(**promises: str) -> Callable[[Story], Story]:
    """By machine: `<kind>`, or `<kind>:<src>` where the kind leaves several states and only that one is meant."""
    promised: set[Taken] = set()
    for machine, kinds in promises.items():
        for kind, _, src in (word.partition(":") for word in kinds.split()):
            meant = {
                arrow
                for arrow in arrows_of(charts())
                if arrow[:2] == (machine.replace("_", "-"), kind) and src in {"", arrow[2]}
            }
            assert len(meant) == 1, f"{machine} {kind}:{src} means {meant}"
            promised |= meant

    def register(story: Story) -> Story:
        STORIES.append((story, promised))
        return story

    return register


def patience(**seconds: float) -> UpdatePolicy:
    return POLICY.model_copy(update=seconds)


# -- enrollment and heartbeat ----------------------------------------------------------------------


@takes(
    enrollment="identity-drawn register-requested:ready enrolled",
    heartbeat="run-started heartbeat-sent:resting heartbeat-answered run-ended:resting",
    app_update="offered admitted download-requested staged apply-requested applied:applying health-passed",
)
async def a_first_update(place: Place) -> None:
    await place.runs("1.0.0")
    await place.stop_agent()


@takes(
    enrollment="identity-lost",
)
async def the_identity_is_lost(place: Place) -> None:
    await place.enrolled()
    await place.stop_agent()
    (place.home / "state.json").unlink()
    place.join_token = place.make_token()
    place.start_agent()
    await place.until_state("enrollment/2", "enrolled")


@takes(
    enrollment="identity-found",
    app_update="found-applied:downloading",
)
async def the_journal_is_lost(place: Place) -> None:
    await place.runs("1.0.0")
    await place.stop_agent()
    for file in place.home.glob("journal.db*"):
        file.rename(place.root / f"kept-{file.name}")
    place.start_agent()
    await place.until_state("app-update/1", "succeeded")


@takes(
    enrollment="node-token-rejected token-given:refused",
    heartbeat="heartbeat-rejected",
)
async def the_node_is_revoked(place: Place) -> None:
    await place.enrolled()
    place.revoke_node()
    await place.until_state("enrollment/2", "refused")
    place.give_token(place.make_token())
    await place.until_state("enrollment/2", "enrolled")


@takes(
    enrollment="node-readmitted",
)
async def the_node_is_revoked_and_readmitted(place: Place) -> None:
    await place.enrolled()
    place.revoke_node()
    await place.until_state("enrollment/2", "refused")
    await place.world.sleep(2 * READMITTED_LOOK_S)
    assert place.state("enrollment/2") == "refused"
    node = place.node_number()
    place.store.write_now(lambda db: node_standing.readmit(db, node))
    await place.until_state("enrollment/2", "enrolled", within_s=2 * READMITTED_LOOK_S)
    await place.until_state("heartbeat/2", "resting")


@takes(
    enrollment="token-missing:ready token-given:awaiting-token register-unanswered"
    " register-requested:backing-off token-missing:backing-off",
)
async def nobody_gives_a_token(place: Place) -> None:
    token, place.join_token = place.join_token, None
    place.to_cloudly.plugged = False
    place.start_agent()
    await place.until_state("enrollment/1", "awaiting-token")
    assert token is not None
    place.give_token(token)
    await place.until(lambda: place.kinds("enrollment/1").count("register-requested") == 2)
    (place.home / "join-token").unlink()
    await place.until_state("enrollment/1", "awaiting-token")


@takes(
    enrollment="register-refused",
)
async def the_token_is_wrong(place: Place) -> None:
    place.join_token = "bjt_" + "x" * 43
    place.start_agent()
    await place.until_state("enrollment/1", "refused")


@takes(
    heartbeat="heartbeat-unanswered heartbeat-sent:backing-off run-ended:backing-off run-ended:sending",
)
async def cloudly_goes_away(place: Place) -> None:
    await place.enrolled()
    place.to_cloudly.plugged = False
    await place.until(lambda: place.kinds("heartbeat/1").count("heartbeat-unanswered") == 2)
    await place.until_state("heartbeat/1", "backing-off")
    await place.stop_agent()
    place.to_cloudly.plugged = True
    place.to_cloudly.inner = Slow(place)
    place.start_agent()
    await place.until_state("heartbeat/2", "sending")
    await place.stop_agent()


class Slow(httpx.AsyncBaseTransport):
    def __init__(self, place: Place) -> None:
        self._place = place

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._place.world.sleep(1000)
        raise httpx.ReadTimeout("never", request=request)


# -- app update ------------------------------------------------------------------------------------


async def apply_by_hand(place: Place) -> None:
    """Somebody tells the Supervisor to apply by force: the agent's lock is deleted too."""
    while not any(told.what == "lock-deleted" for told in place.supervisor.told):
        place.supervisor.follower.notice(force=True, cancel=True)
        await place.world.sleep(0.7)


@takes(
    app_update="superseded:offered superseded:admitted superseded:downloading",
)
async def the_operator_changes_his_mind(place: Place) -> None:
    await place.enrolled()
    place.to_supervisor.plugged = False
    place.set_release("1.0.0")
    await place.until_state("app-update/1", "offered")
    place.set_release("1.1.0")
    await place.until_state("app-update/1", "superseded")

    locks = place.root / "locks"
    locks.rename(place.root / "locks-elsewhere")
    locks.touch()
    place.to_supervisor.plugged = True
    await place.until_state("app-update/2", "admitted")
    place.set_release("1.2.0", behaviour="pull-fails")
    await place.until_state("app-update/2", "superseded")

    locks.unlink()
    await place.until_state("app-update/3", "downloading")
    place.set_release("1.3.0")
    await place.until_state("app-update/3", "superseded")


@takes(
    app_update="download-failed",
)
async def the_registry_has_no_such_image(place: Place) -> None:
    await place.enrolled()
    place.set_release("1.0.0", behaviour="pull-fails", policy=patience(download_deadline_s=20))
    await place.until_state("app-update/1", "failed")


@takes(
    app_update="staging-lost found-applied:staged superseded:staged",
)
async def somebody_prunes_images_and_applies_by_hand(place: Place) -> None:
    await place.runs("1.0.0")
    ours = place.root / "locks" / "updates.lock"
    ours.write_text("not the agent's")
    place.set_release("1.1.0")
    await place.until_state("app-update/2", "staged")
    place.supervisor.misbehave("main", Behaviour.PULL_FAILS)
    place.supervisor.kept.images.pop()
    await place.until(lambda: "staging-lost" in place.kinds("app-update/2"))
    place.supervisor.misbehave("main", Behaviour.WELL)
    await place.until_state("app-update/2", "staged")
    await place.stop_agent()
    await apply_by_hand(place)
    await place.world.sleep(20)
    place.start_agent()
    await place.until_state("app-update/2", "succeeded")

    ours.write_text("not the agent's")
    place.set_release("1.2.0")
    await place.until_state("app-update/3", "staged")
    place.set_release("1.3.0")
    await place.until_state("app-update/3", "superseded")


@takes(
    app_update="apply-retried force-requested apply-failed:applying",
)
async def a_backup_runs_for_long(place: Place) -> None:
    await place.runs("1.0.0")
    place.someone_locks()
    place.set_release("1.1.0", policy=patience(apply_deadline_s=20))
    await place.until(lambda: "apply-retried" in place.kinds("app-update/2"))
    place.order(OrderKind.FORCE)
    await place.until_state("app-update/2", "succeeded")

    place.someone_locks()
    place.set_release("1.2.0", policy=patience(apply_deadline_s=20, max_apply_attempts=1))
    await place.until_state("app-update/3", "rollback-needed", "rolling-back")


@takes(app_update="superseded:applying")
async def a_target_that_changes_while_a_neighbour_holds_up_the_apply(place: Place) -> None:
    place.start_agent()
    await place.until_state("enrollment/1", "enrolled")
    place.set_release("1.0.0")
    await place.until_state("app-update/1", "succeeded")
    (place.root / "locks" / "resin-updates.lock").touch()
    place.set_release("1.1.0")
    await place.until_state("app-update/2", "applying")

    place.set_release("1.2.0")

    await place.until_state("app-update/2", "superseded")


@takes(
    app_update="apply-unclear applied:unclear superseded:unclear apply-failed:unclear",
)
async def it_neither_starts_nor_fails(place: Place) -> None:
    place.supervisor_poll_s = 5
    await place.runs("1.0.0")
    place.set_release("1.1.0", behaviour="never-starts", policy=patience(apply_deadline_s=20))
    await place.until_state("app-update/2", "unclear")
    place.supervisor.misbehave("main", Behaviour.WELL)
    await place.until_state("app-update/2", "succeeded")

    place.supervisor.misbehave("main", Behaviour.NEVER_STARTS)
    place.set_release("1.2.0", policy=patience(apply_deadline_s=20))
    await place.until_state("app-update/3", "unclear")
    place.set_release("1.3.0", policy=patience(apply_deadline_s=20))
    await place.until_state("app-update/3", "superseded")

    await place.until_state("app-update/4", "unclear")
    await place.until_state("app-update/4", "rollback-needed", within_s=4000, look_s=5)


@takes(
    app_update="superseded:verifying",
)
async def somebody_applies_the_next_one_by_force(place: Place) -> None:
    await place.enrolled()
    place.set_release("1.0.0", policy=patience(health_soak_s=200, health_deadline_s=300))
    await place.until_state("app-update/1", "verifying")
    place.set_release("1.1.0")
    await apply_by_hand(place)
    await place.until_state("app-update/1", "superseded")


@takes(
    app_update="health-failed superseded:rollback-needed",
)
async def nothing_good_to_go_back_to(place: Place) -> None:
    await place.enrolled()
    place.set_release("1.0.0", behaviour="crash-after-start")
    await place.until_state("app-update/1", "rollback-needed")
    place.set_release("1.1.0")
    await place.until_state("app-update/1", "superseded")


@takes(
    app_update="rollback-requested rolled-back rollback-failed",
)
async def back_and_not_back(place: Place) -> None:
    await place.runs("1.0.0")
    place.set_release("1.1.0", behaviour="crash-after-start")
    await place.until_state("app-update/2", "rolled-back")

    place.set_release("1.2.0", behaviour="crash-after-start", policy=patience(apply_deadline_s=30))
    await place.until_state("app-update/3", "verifying")
    place.someone_locks()
    await place.until_state("app-update/3", "failed")


# -- reboot ----------------------------------------------------------------------------------------


@takes(
    reboot="reboot-requested:new rebooted reboot-refused:new reboot-refused:rebooting",
)
async def it_reboots(place: Place) -> None:
    await place.enrolled()
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/1", "done")

    place.supervisor.host_update_in_progress = True
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/2", "refused")

    place.set_release("1.0.0")
    await place.until_state("app-update/1", "verifying")
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/3", "refused")


@takes(
    reboot="reboot-failed",
)
async def it_says_it_will_reboot(place: Place) -> None:
    await place.enrolled()
    agreed = httpx.Response(202, json={"Data": "OK", "Error": None})
    place.to_supervisor.inner = Instead(
        place.to_supervisor.inner, lambda it: agreed if it.url.path == "/v1/reboot" else None
    )
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/1", "failed")


# -- diagnosis -------------------------------------------------------------------------------------


@takes(
    diagnosis="diagnosis-asked diagnosis-answered",
)
async def it_looks_at_itself(place: Place) -> None:
    await place.enrolled()
    place.ask_diagnosis()
    await place.until_state("diagnosis/1", "done")


# -- update locks of neighbours ----------------------------------------------------------------------


@takes(
    lock="acquired renewed resumed released expired",
)
async def a_neighbour_holds_locks_over_a_boot_of_the_host(place: Place) -> None:
    await place.enrolled()
    held, _dead = acquire(place, ttl_s=300), acquire(place, ttl_s=60)
    await place.world.sleep(30)
    renew(place, held)
    await place.reboot_host()
    await place.until_state("lock/2", "expired")
    release(place, held)
    assert place.state("lock/1") == "released"


@takes(
    lock="broken",
    reboot="reboot-postponed reboot-requested:waiting",
)
async def an_operator_breaks_the_lock_that_a_reboot_waits_for(place: Place) -> None:
    await place.runs("1.0.0")
    held = acquire(place)
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/1", "waiting")
    place.leases.break_(held.lock.lock, by="me", reason="it must be now")
    await place.until_state("reboot/1", "done")


@takes(
    reboot="reboot-refused:waiting",
)
async def a_reboot_waits_too_long_for_a_lock(place: Place) -> None:
    await place.runs("1.0.0")
    held = acquire(place, ttl_s=3600)
    place.order(OrderKind.REBOOT)
    await place.until_state("reboot/1", "waiting")
    await place.world.sleep(1800)
    renew(place, held, ttl_s=3600)
    await place.until_state("reboot/1", "refused", within_s=1900)


# -- node token --------------------------------------------------------------------------------------


@takes(
    token_rotation="rotation-asked token-drawn token-announced token-switched token-proved",
)
async def cloudly_asks_for_another_token(place: Place) -> None:
    await place.enrolled()
    place.ask_rotation()
    await place.until_state("token-rotation/1", "rotated")


async def dropped_after(place: Place, fact: str, happens: Callable[[], None]) -> None:
    """Something happens at that fact of a rotation."""
    place.points = lambda point: happens() if point == f"after-commit:{fact}" else None
    place.ask_rotation()
    await place.until_state("token-rotation/1", "dropped")


@takes(
    token_rotation="rotation-dropped:drawing",
)
async def the_identity_goes_away_in_mid_rotation(place: Place) -> None:
    await place.enrolled()
    await dropped_after(place, "rotation-asked", (place.home / "state.json").unlink)


def without_the_drawn_one(place: Place) -> None:
    identity = read_identity(place.home)
    assert identity is not None
    write_identity(place.home, without_next(identity))


@takes(
    token_rotation="rotation-dropped:announcing",
)
async def the_disk_is_restored_before_it_announces(place: Place) -> None:
    await place.enrolled()
    await dropped_after(place, "token-drawn", partial(without_the_drawn_one, place))


@takes(
    token_rotation="rotation-dropped:switching",
)
async def the_disk_is_restored_after_it_announced(place: Place) -> None:
    await place.enrolled()
    await dropped_after(place, "token-announced", partial(without_the_drawn_one, place))


@takes(
    token_rotation="rotation-dropped:proving",
    token_fallback="token-refused:new token-turned token-taken",
)
async def cloudly_is_restored_in_mid_rotation(place: Place) -> None:
    await place.enrolled()
    before = place.credential()
    await dropped_after(place, "token-switched", lambda: place.restore_credential(before))


@takes(
    token_fallback="token-refused:trying tokens-exhausted",
)
async def cloudly_knows_none_of_its_tokens(place: Place) -> None:
    await place.enrolled()
    place.ask_rotation()
    await place.until_state("token-rotation/1", "rotated")
    place.forget_node()
    await place.until_state("enrollment/2", "refused")


def never_taken(charts: list[Chart]) -> set[Taken]:
    """Arrows that no story promises to take."""
    return arrows_of(charts) - set().union(*(promised for _, promised in STORIES))


@pytest.mark.parametrize(("story", "promised"), STORIES, ids=[it.__name__ for it, _ in STORIES])
def test_a_story_takes_the_arrows_that_it_promises(
    story: Story, promised: set[Taken], tmp_path: Path
) -> None:
    async def played() -> set[Taken]:
        async with a_place(tmp_path) as place:
            await story(place)
            return arrows_taken(place)

    assert promised - run_virtual(played) == set()


def test_every_arrow_of_every_chart_is_promised_by_a_story() -> None:
    assert never_taken(charts()) == set()


def test_a_planted_arrow_that_nobody_takes_turns_it_red() -> None:
    reboot = MACHINES["reboot"].machine.chart
    planted = Chart(
        name="reboot",
        initial=reboot.initial,
        arrows=(*reboot.arrows, Arrow("reboot-retried", "rebooting", "rebooting")),
        waits=dict(reboot.waits),
        final=reboot.final,
    )

    assert never_taken([planted]) == {("reboot", "reboot-retried", "rebooting", "rebooting")}
