"""What goes along with an attempt that fails: the last lines of three logs, before the outcome, and to Cloudly."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from baserunner import attempt_log
from baserunner.attempt_log import AttemptLog, Source
from baserunner.drive import Driver, Happened
from baserunner.identity import read_identity
from interfaces.reported import Space
from journal.facts import Fact
from journal.recall import Stream
from simulators.supervisor import Manner
from simulators.supervisor.host_journal import SUPERVISOR
from simulators.world import run_virtual
from tests.world import kit
from tests.world.kit import POLICY, Instead, Place, QuietHost, a_place, image_of
from tests.world.outside import Stream as Body

PATH = "/v2/journal-logs"
UPDATE = "app-update/2"


def lines_of(place: Place, stream: str = UPDATE) -> list[Fact]:
    return [fact for fact in place.facts(stream) if fact.kind == "lines"]


def said(notes: list[Fact], source: str) -> list[str]:
    return [
        line for note in notes if note.values["source"] == source for line in note.values["lines"]
    ]


def why(notes: list[Fact], source: str) -> set[str]:
    return {note.values.get("why", "") for note in notes if note.values["source"] == source}


def at_cloudly(place: Place) -> list[dict[str, Any]]:
    """Every event of the log lane that Cloudly has."""
    rows = place.store.read_now(
        lambda db: db.execute(
            "SELECT events FROM journal_chunk WHERE lane='log' ORDER BY first_seq"
        ).fetchall()
    )
    return [event for row in rows for event in json.loads(row[0])]


def asked(place: Place) -> int:
    return place.to_supervisor.requests.count(f"POST {PATH}")


async def fails_its_health_check(place: Place, behaviour: str = "crash-after-start") -> None:
    await place.runs("1.0.0")
    place.set_release("1.1.0", behaviour=behaviour)
    await place.until_state(UPDATE, "rollback-needed", "rolling-back", "rolled-back")


def test_an_update_that_fails_its_health_check_takes_its_lines_to_cloudly(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await fails_its_health_check(place)

            notes, facts = lines_of(place), place.facts(UPDATE)
            assert [note.values["source"] for note in notes] == list(Source)
            assert any("fatal: a simulated crash" in line for line in said(notes, "host"))
            assert any("Applying target state" in line for line in said(notes, "supervisor"))
            assert not any("fatal" in line for line in said(notes, "supervisor"))
            assert any("service main is exited" in line for line in said(notes, "agent"))
            outcome = next(fact for fact in facts if fact.kind == "health-failed")
            assert {note.n for note in notes} == set(range(outcome.n - 3, outcome.n))
            await place.until(
                lambda: (
                    {note.hash.hex() for note in notes} <= {e["hash"] for e in at_cloudly(place)}
                ),
                within_s=10,
            )

    run_virtual(story)


def test_an_update_that_succeeds_takes_no_lines(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")

            assert lines_of(place, "app-update/1") == []
            assert asked(place) == 0

    run_virtual(story)


def test_a_download_that_fails_says_what_the_engine_said(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            impatient = POLICY.model_copy(update={"download_deadline_s": 60})
            place.set_release("1.1.0", behaviour="pull-fails", policy=impatient)
            await place.until_state(UPDATE, "failed")

            assert any("manifest unknown" in line for line in said(lines_of(place), "host"))

    run_virtual(story)


# -- the Supervisor is no help ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (Manner.ABSENT, "the Supervisor answered 404 to POST /v2/journal-logs"),
        (Manner.REFUSED, "the Supervisor refused our key for POST /v2/journal-logs"),
        (Manner.SLOW, "the Supervisor gave no answer within 4 s"),
        (Manner.ENDLESS, "the Supervisor gave no answer within 4 s"),
        (Manner.GARBAGE, "the Supervisor answered with something that is no text"),
    ],
)
def test_a_supervisor_without_lines_is_told_in_words_and_holds_nothing_up(
    tmp_path: Path, manner: Manner, reason: str
) -> None:
    """An endless answer comes as none here: ASGI in memory gives an answer only when it has ended."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.supervisor.host_journal.manner = manner
            await fails_its_health_check(place)

            assert asked(place) == 2
            notes = lines_of(place)
            for source in ("supervisor", "host"):
                assert said(notes, source) == []
                assert all(words.startswith(reason) for words in why(notes, source))
            assert said(notes, "agent")
            delay_s = (place.facts(UPDATE)[-1].mono_ms - notes[0].mono_ms) / 1000
            assert delay_s < 30
            await place.until_state(UPDATE, "rolled-back")

    run_virtual(story)


def test_of_an_answer_that_never_ends_the_lines_that_came_are_kept(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            bodies: list[Body] = []

            def endless(request: httpx.Request) -> httpx.Response | None:
                if request.url.path != PATH:
                    return None
                numbered = (f"line {n}\nhalf a li".encode() for n in itertools.count())
                bodies.append(Body(place.world, numbered, every_s=0.1))
                return httpx.Response(200, stream=bodies[-1])

            place.to_supervisor.inner = Instead(place.to_supervisor.inner, endless)
            await fails_its_health_check(place)

            assert len(bodies) == 2
            lines = said(lines_of(place), "host")
            assert lines[:2] == ["line 0", "half a liline 1"]
            assert all("line" in line for line in lines)
            assert why(lines_of(place), "host") == {
                "not all was read: it went on for more than 4 s"
            }

    run_virtual(story)


def test_of_an_answer_without_measure_the_newest_lines_are_kept_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            pieces = [
                b"".join(b"line %d\n" % (n * 1000 + i) for i in range(1000)) for n in range(50)
            ]
            place.to_supervisor.inner = Instead(
                place.to_supervisor.inner,
                lambda it: (
                    httpx.Response(200, stream=Body(place.world, pieces))
                    if it.url.path == PATH
                    else None
                ),
            )
            await fails_its_health_check(place)

            note = next(n for n in lines_of(place) if n.values["source"] == "host")
            assert note.values["lines"] == [f"line {n}" for n in range(49_900, 50_000)]
            assert note.values["omitted"] == 49_900
            assert "why" not in note.values

    run_virtual(story)


def test_a_supervisor_that_is_gone_is_told_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            impatient = POLICY.model_copy(update={"download_deadline_s": 120})
            place.set_release("1.1.0", behaviour="pull-fails", policy=impatient)
            await place.until_state(UPDATE, "downloading")
            place.to_supervisor.plugged = False
            await place.until_state(UPDATE, "failed")

            notes = lines_of(place)
            assert why(notes, "host") == {
                "the Supervisor cannot be reached: ConnectError: unplugged"
            }
            assert any("cannot be reached" in line for line in said(notes, "agent"))

    run_virtual(story)


def test_on_a_disk_that_is_nearly_full_the_room_is_left_to_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NearlyFull(QuietHost):
        def disk(self) -> Space | None:
            return Space(total_bytes=8_000_000_000, free_bytes=500_000)

    async def story() -> None:
        async with a_place(tmp_path) as place:
            monkeypatch.setattr(kit, "QuietHost", NearlyFull)
            await fails_its_health_check(place)

            assert asked(place) == 0
            assert why(lines_of(place), "agent") == {"the disk has only 500000 bytes left"}

    run_virtual(story)


# -- kills -----------------------------------------------------------------------------------------


def kill_at(place: Place, point: str, fired: list[str]) -> None:
    """The power goes when that point is first passed; half a minute later the agent is started again."""

    async def start_again() -> None:
        await place.agent_ended.wait()
        await place.world.sleep(30)
        place.start_agent()

    def points(name: str) -> None:
        if name == point and not fired:
            fired.append(name)
            before = place.data
            place.lives += 1
            shutil.copytree(before, place.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
            place.agent_scope.cancel()
            place.tasks.start_soon(start_again)

    place.points = points


def test_killed_between_its_lines_and_its_outcome_an_attempt_gathers_again_and_says_so(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            fired: list[str] = []
            kill_at(place, "after-commit:lines", fired)
            await fails_its_health_check(place)

            assert fired == ["after-commit:lines"]
            notes, kinds = lines_of(place), place.kinds(UPDATE)
            assert kinds.count("health-failed") == 1
            first, again = notes[:-3], notes[-3:]
            assert 1 <= len(first) <= 3
            assert ["again" in note.values for note in first] == [False] * len(first)
            assert all(note.values["again"] is True for note in again)
            await place.until_state(UPDATE, "rolled-back")
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())

    run_virtual(story)


def lines_that_survive(root: Path) -> list[str]:
    """The sources whose lines are there when the power goes right after the outcome was written."""

    async def story() -> list[str]:
        async with a_place(root) as place:
            fired: list[str] = []
            kill_at(place, "after-commit:health-failed", fired)
            await fails_its_health_check(place)
            assert fired == ["after-commit:health-failed"]
            return [note.values["source"] for note in lines_of(place)]

    return run_virtual(story)


def test_when_the_power_goes_right_after_the_outcome_its_lines_are_there(tmp_path: Path) -> None:
    assert lines_that_survive(tmp_path) == list(Source)


def test_with_lines_that_are_written_after_the_outcome_that_story_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted defect: what is commentary is written when the important thing is done."""
    in_time = Driver.drive
    held: list[Any] = []

    async def before(self: AttemptLog, stream: Stream[Any], outcome: Happened) -> None:
        held.append((self, stream, outcome))

    real = AttemptLog.before
    monkeypatch.setattr(AttemptLog, "before", before)

    async def drive(self: Driver, *args: Any, **rest: Any) -> None:
        await in_time(self, *args, **rest)
        for log, stream, outcome in held:
            await real(log, stream, outcome)

    monkeypatch.setattr(Driver, "drive", drive)

    assert lines_that_survive(tmp_path) == []


# -- secrets ---------------------------------------------------------------------------------------

CANARY = "c4naryC4naryc4nary"
FORMS = (
    "[api] GET /v1/device?apikey={} 200",
    "Authorization: Bearer {}",
    'env: {{"API_KEY": "{}"}}',
    "password={}",
    "pulling https://user:{}@registry.example/v2/",
    "REGISTRY_TOKEN={} is in the environment",
    "b\x1b[31mold\x1b[0m apikey=\x1b[31m{}\x1b[0m",
)
"""How the secrets of others come along."""


def canaries_found(root: Path) -> set[str]:
    """Which secrets, ours and others', can be found in what an attempt left on the device and at Cloudly."""

    async def story() -> set[str]:
        async with a_place(root) as place:
            await place.runs("1.0.0")
            identity = read_identity(place.home)
            assert identity is not None
            assert identity.node_token is not None
            ours = [identity.node_token.get_secret_value(), kit.KEY]
            for form in (*FORMS, *(f"seen: {secret}" for secret in ours)):
                place.supervisor.host_journal.say(SUPERVISOR, "x", form.format(CANARY))
            place.set_release("1.1.0", behaviour="crash-after-start")
            await place.until_state(UPDATE, "rolled-back")
            await place.until(
                lambda: sum(event["kind"] == "lines" for event in at_cloudly(place)) == 3
            )
            lines = said(lines_of(place), "host")
            assert sum("seen: " in line for line in lines) == 2, "it did not come along"
            assert sum("[secret]" in line for line in lines) in {0, len(FORMS) + 2}
            await place.stop_agent()
            kept = b"".join(
                path.read_bytes()
                for path in [*place.home.glob("journal.db*"), *(root / "cloudly").iterdir()]
            )
            return {secret for secret in (CANARY, *ours) if secret.encode() in kept}

    return run_virtual(story)


def test_no_secret_of_ours_or_of_others_comes_along_with_the_lines(tmp_path: Path) -> None:
    assert canaries_found(tmp_path) == set()


def test_without_redaction_the_canaries_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted defect."""

    def nothing_hidden(line: str, _redact: Callable[[str], str]) -> str:
        return line

    monkeypatch.setattr(attempt_log, "fit", nothing_hidden)

    assert len(canaries_found(tmp_path)) == 3


def test_progress_that_goes_up_and_down_for_ever_is_noted_twenty_times(tmp_path: Path) -> None:
    """Also by an agent that is killed in the middle of it."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            percent = itertools.cycle([10, 60])
            image = {"name": image_of("1.1.0"), "status": "Downloading"}

            def downloading(request: httpx.Request) -> httpx.Response | None:
                if request.url.path != "/v2/state/status":
                    return None
                state = {"appState": "applying", "overallDownloadProgress": next(percent)}
                return httpx.Response(200, json={**state, "images": [image]})

            place.to_supervisor.inner = busy = Instead(place.to_supervisor.inner, downloading)
            place.set_release("1.1.0")
            await place.world.sleep(200)
            await place.cut_power_to_agent()
            place.start_agent()
            await place.world.sleep(400)

            assert busy.fired > 200
            noted = [fact for fact in place.facts(UPDATE) if fact.kind == "progressed"]
            assert len(noted) == 19, "the twentieth place is for 100 %"

    run_virtual(story)
