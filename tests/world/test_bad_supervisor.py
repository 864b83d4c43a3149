"""Bad days of the Supervisor: away, deaf, forgetful, mistaken. An update waits, or ends as what really is."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from baserunner.orders import OrderKind
from simulators.world import run_virtual
from tests.world.kit import POLICY, Instead, Place, a_place, commit_of, image_of
from tests.world.outside import Afterwards, altered

STATES = ("downloading", "applying", "verifying")
"""Where an update waits for the Supervisor long enough to be met there."""


def tells(place: Place, *, since: int = 0) -> list[str]:
    """What the Supervisor was told to do: download or apply."""
    return [
        "apply" if told.body.get("cancel") else "download"
        for told in place.supervisor.told[since:]
        if told.what == "update"
    ]


async def met_in(place: Place, state: str) -> int:
    """A second update, met in that state; returns how much the Supervisor had been told before it."""
    await place.runs("1.0.0")
    before = len(place.supervisor.told)
    place.set_release("1.1.0")
    await place.until_state("app-update/2", state)
    return before


# -- away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_a_key_that_is_refused_for_ten_minutes_delays_an_update(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    """A fresh key may be refused for a minute; ten are ten times that. Nothing has been decided meanwhile."""
    patient = POLICY.model_copy(update={"health_deadline_s": 900, "apply_deadline_s": 900})

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            before = len(place.supervisor.told)
            place.set_release("1.1.0", policy=patient)
            await place.until_state("app-update/2", state)
            real, no = place.to_supervisor.inner, httpx.Response(401, text="Unauthorized")
            caplog.clear()

            place.to_supervisor.inner = refused = Instead(real, lambda _: no)
            await place.world.sleep(600)
            assert refused.fired > 100
            assert place.state("app-update/2") in {state, "applying"}
            said = [r for r in caplog.records if r.levelno >= logging.WARNING]
            assert 1 <= len(said) <= 5, [r.getMessage() for r in said]
            assert place.node().state == "online"

            place.to_supervisor.inner = real
            await place.until_state("app-update/2", "succeeded")
            assert tells(place, since=before).count("apply") <= 1

    run_virtual(story)


@pytest.mark.parametrize("state", STATES)
def test_a_supervisor_that_is_gone_for_a_while_delays_an_update(tmp_path: Path, state: str) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            before = await met_in(place, state)

            place.to_supervisor.plugged = False
            await place.world.sleep(45)
            place.to_supervisor.plugged = True

            await place.until_state("app-update/2", "succeeded")
            assert sorted(tells(place, since=before)) == ["apply", "download"]

    run_virtual(story)


@pytest.mark.parametrize("state", STATES)
def test_a_supervisor_that_restarts_forgets_and_an_update_goes_on(
    tmp_path: Path, state: str
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            before = await met_in(place, state)

            place.supervisor.restart()

            await place.until_state("app-update/2", "succeeded")
            assert len(tells(place, since=before)) <= 4

    run_virtual(story)


def test_a_supervisor_that_never_comes_back_does_not_hold_an_attempt_for_ever(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.to_supervisor.plugged = False
            impatient = POLICY.model_copy(update={"download_deadline_s": 120})
            place.to_supervisor.plugged = True
            place.set_release("1.1.0", behaviour="pull-fails", policy=impatient)
            await place.until_state("app-update/2", "downloading")
            place.to_supervisor.plugged = False

            await place.until_state("app-update/2", "failed", within_s=200)

            assert place.facts("app-update/2")[-1].values["reason"] == (
                "the Supervisor does not answer"
            )

    run_virtual(story)


# -- says ok, and does something else --------------------------------------------------------------


def test_an_update_that_is_agreed_to_and_never_done_is_given_up_and_turned_back(
    tmp_path: Path,
) -> None:
    """204, 204, 204, and nothing: tried as often as the policy says, then rolled back to what still runs."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            impatient = POLICY.model_copy(update={"apply_deadline_s": 30, "max_apply_attempts": 2})
            place.set_release("1.1.0", policy=impatient)
            place.someone_locks()
            await place.until_state("app-update/2", "applying")
            real, agreed = place.to_supervisor.inner, httpx.Response(204)
            place.to_supervisor.inner = deaf = Instead(
                real, lambda it: agreed if it.url.path == "/v1/update" else None
            )

            await place.until_state("app-update/2", "rollback-needed", within_s=400)
            assert place.kinds("app-update/2").count("apply-retried") == 1
            assert deaf.fired <= 4
            (place.root / "locks" / "resin-updates.lock").unlink()
            place.to_supervisor.inner = real
            await place.until_state("app-update/2", "rolled-back")

            assert "succeeded" not in {f.dst for f in place.facts("app-update/2")}
            await place.until(lambda: place.node().release == commit_of("1.0.0"))

    run_virtual(story)


def test_a_supervisor_that_reports_another_release_is_not_believed(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.supervisor_poll_s = 10
            await place.runs("1.0.0")
            impatient = POLICY.model_copy(update={"apply_deadline_s": 30})
            place.set_release("1.1.0", policy=impatient)
            await place.until_state("app-update/2", "applying")

            async def another(
                request: httpx.Request, answer: httpx.Response
            ) -> httpx.Response | None:
                if request.url.path != "/v2/state/status":
                    return None
                return altered(answer, release="c0ffee", appState="applied")

            place.to_supervisor.inner = lied = Afterwards(place.to_supervisor.inner, another)
            await place.until_state(
                "app-update/2", "rollback-needed", "rolling-back", within_s=5000
            )

            assert lied.fired > 10
            assert {"applied", "health-passed"}.isdisjoint(place.kinds("app-update/2"))

    run_virtual(story)


def test_a_new_digest_in_a_known_repository_is_found_out_and_never_called_a_success(
    tmp_path: Path,
) -> None:
    """Oddity 4 of the recordings: never pulled, the old container renamed, reported Running."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            repository = image_of("1.0.0").partition("@")[0]
            digest = image_of("1.1.0").partition("@")[2]
            place.set_release("1.1.0", image=f"{repository}@{digest}")

            await place.until_state("app-update/2", "failed")

            assert "was never pulled" in place.facts("app-update/2")[-1].values["reason"]
            assert {"staged", "applied", "health-passed"}.isdisjoint(place.kinds("app-update/2"))
            assert "apply" not in tells(place, since=2)

    run_virtual(story)


def test_a_202_means_that_it_will_do_it_in_its_own_time(tmp_path: Path) -> None:
    """Instant updates are off: it follows its own poll, every 15 minutes and up to one more."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.supervisor_poll_s = 5
            await place.runs("1.0.0")
            later = httpx.Response(202, text="Accepted")
            place.to_supervisor.inner = said = Instead(
                place.to_supervisor.inner, lambda it: later if it.url.path == "/v1/update" else None
            )
            patient = POLICY.model_copy(update={"apply_deadline_s": 600})
            place.set_release("1.1.0", policy=patient)

            await place.until_state("app-update/2", "succeeded", within_s=4000, look_s=5)

            assert said.fired >= 2
            assert "rollback-needed" not in {f.dst for f in place.facts("app-update/2")}

    run_virtual(story)


# -- reboots ---------------------------------------------------------------------------------------


def test_a_reboot_is_agreed_to_then_the_line_goes_dead_and_the_boot_id_proves_it(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.order(OrderKind.REBOOT)

            await place.until_state("reboot/1", "done")

            assert place.world.boots == 2
            reboots = [told for told in place.supervisor.told if told.what == "reboot"]
            assert len(reboots) == 1
            assert place.kinds("reboot/1") == ["reboot-requested", "rebooted"]
            await place.until(lambda: place.node().state == "online")
            assert (place.root / "locks" / "updates.lock").exists()

    run_virtual(story)


def test_a_reboot_during_a_host_update_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.supervisor.host_update_in_progress = True
            place.order(OrderKind.REBOOT)

            await place.until_state("reboot/1", "refused")

            assert "Host OS update" in place.facts("reboot/1")[-1].values["reason"]
            assert place.world.boots == 1
            assert (place.root / "locks" / "updates.lock").exists()

    run_virtual(story)


def test_a_reboot_that_is_answered_by_an_error_is_asked_for_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            errors = iter([httpx.Response(500), httpx.Response(503, text="Service Unavailable")])
            place.to_supervisor.inner = Instead(
                place.to_supervisor.inner,
                lambda it: next(errors, None) if it.url.path == "/v1/reboot" else None,
            )
            place.order(OrderKind.REBOOT)

            await place.until_state("reboot/1", "done")

    run_virtual(story)


def test_a_rollback_that_is_not_heard_is_told_again(tmp_path: Path) -> None:
    """With a release that never starts the Supervisor is never idle: it waits longer and longer between its tries."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.supervisor_poll_s = 5
            await place.runs("1.0.0")
            impatient = POLICY.model_copy(update={"apply_deadline_s": 120})
            place.set_release("1.1.0", behaviour="never-starts", policy=impatient)
            await place.until_state("app-update/2", "unclear", look_s=5)
            place.set_release("1.2.0", behaviour="never-starts", policy=impatient)
            lost = iter([httpx.Response(204)])
            await place.until_state("app-update/3", "unclear", within_s=1200, look_s=5)
            place.to_supervisor.inner = deaf = Instead(
                place.to_supervisor.inner,
                lambda it: next(lost, None) if it.url.path == "/v1/update" else None,
            )
            await place.until_state("app-update/3", "rolled-back", within_s=5000, look_s=5)

            assert deaf.fired == 1

    run_virtual(story)


def test_two_reboots_at_once_are_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            answers = [place.order(OrderKind.REBOOT) for _ in range(3)]
            await place.until(lambda: all(answer.exists() for answer in answers))
            said = [answer.read_text() for answer in answers]

            await place.until_state("reboot/1", "done")

            assert sum('"done":true' in one for one in said) == 1, said
            assert place.world.boots == 2
            assert place.state("reboot/2") is None

    run_virtual(story)


# -- the answer is lost ----------------------------------------------------------------------------

TIMES = {
    "/nodes/register": 3,
    "/nodes/heartbeat": 3,
    "/nodes/journal": 3,
    "/v2/state/status": 3,
    "/v1/device": 3,
    "/v1/update": 3,
    "/v1/reboot": 1,
}


@pytest.mark.parametrize("path", TIMES)
def test_an_answer_that_is_lost_after_the_deed_leads_to_the_same_end(
    tmp_path: Path, path: str
) -> None:
    """On every endpoint, as often as it is asked, up to three times in a row: what was done is done once."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            lost: list[str] = []

            async def loses(request: httpx.Request, _: httpx.Response) -> httpx.Response | None:
                if request.url.path.endswith(path) and len(lost) < TIMES[path]:
                    lost.append(path)
                    await place.world.sleep(5)
                    raise httpx.ReadTimeout("lost", request=request)
                return None

            for line in (place.to_cloudly, place.to_supervisor):
                line.inner = Afterwards(line.inner, loses)
            await place.runs("1.0.0")
            last = place.set_release("1.1.0")
            await place.until_state("app-update/2", "succeeded")
            place.order(OrderKind.REBOOT)
            await place.until_state("reboot/1", "done")
            await place.until(lambda: place.node().release == last)
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())

            assert len(lost) == TIMES[path]
            assert place.kinds("enrollment/1")[-1] == "enrolled"
            assert [told.what for told in place.supervisor.told].count("reboot") == 1
            assert tells(place).count("apply") <= 3
            nodes = place.store.read_now(
                lambda db: db.execute("SELECT count(*) FROM node").fetchone()
            )
            assert nodes[0] == 1

    run_virtual(story)
