"""Join tokens and node tokens that Cloudly does not take, and identities that the disk does not give back."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from interfaces.problem import PROBLEM_MEDIA_TYPE
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import Instead, Place, a_place

DAYS_S = 3 * 86_400.0
REGISTER, HEARTBEAT = "POST /baseos/v1/nodes/register", "POST /baseos/v1/nodes/heartbeat"


def epoch(place: Place) -> str:
    with open_reader(place.home) as reader:
        return reader.epoch


def nodes(place: Place) -> list[str]:
    rows = place.store.read_now(lambda db: db.execute("SELECT node_id FROM node").fetchall())
    return [str(row[0]) for row in rows]


# -- join tokens -----------------------------------------------------------------------------------


async def wrong(_place: Place) -> str:
    return "bjt_" + "x" * 43


async def used_up(place: Place) -> str:
    """By another device."""
    token = place.make_token()
    answer = await httpx.AsyncClient(transport=place.to_cloudly).post(
        "https://cloudly.example/baseos/v1/nodes/register",
        headers={"Authorization": f"Bearer {token}"},
        json={
            "node_id": "another",
            "enrollment_secret": "s" * 43,
            "epoch": "e1",
            "agent_version": "0",
        },
    )
    assert answer.status_code == 201
    place.to_cloudly.requests.clear()
    return token


async def expired(place: Place) -> str:
    token = place.make_token(lasts_s=60)
    await place.cloudly_world.sleep(61)
    return token


async def revoked(place: Place) -> str:
    token = place.make_token()
    place.revoke_token(2)
    return token


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (wrong, "not known"),
        (used_up, "used up"),
        (expired, "expired"),
        (revoked, "revoked"),
    ],
    ids=lambda it: it.__name__ if callable(it) else None,
)
@pytest.mark.usefixtures("unhurried")
def test_a_bad_join_token_is_asked_with_once_and_a_good_one_enrolls(
    tmp_path: Path, bad: Callable[[Place], Awaitable[str]], reason: str
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.supervisor.stop()  # it would poll its target through all these days
            place.join_token = await bad(place)
            place.start_agent()
            await place.world.sleep(DAYS_S / 2)

            assert place.to_cloudly.requests == [REGISTER]
            assert place.state("enrollment/1") == "refused"
            said = " ".join(place.status().problems)
            assert reason in said.lower(), said

            await place.cut_power_to_agent()
            place.start_agent()
            await place.world.sleep(DAYS_S / 2)
            assert place.to_cloudly.requests == [REGISTER]

            place.give_token(place.make_token())
            await place.until_state("enrollment/1", "enrolled", within_s=1300)
            assert not (place.home / "join-token").exists()
            await place.until(lambda: place.node().state == "online")

    run_virtual(story)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "malformed"), (408, "busy"), (404, "not-found"), (413, "too-large")],
)
def test_a_no_that_is_not_about_the_token_does_not_use_it_up(
    tmp_path: Path, status: int, code: str
) -> None:
    """A body that came torn, or a proxy's wrong turn: tomorrow the same token is good."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            problem = {"title": "No.", "status": status, "code": code}
            no = httpx.Response(status, json=problem, headers={"content-type": PROBLEM_MEDIA_TYPE})
            answers = iter([no, no])
            place.to_cloudly.inner = lied = Instead(
                place.to_cloudly.inner,
                lambda it: next(answers, None) if it.url.path.endswith("register") else None,
            )

            await place.enrolled()

            assert lied.fired == 2
            assert "register-refused" not in place.kinds("enrollment/1")

    run_virtual(story)


# -- node tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Place.revoke_node, Place.forget_node], ids=["revoked", "unknown"])
@pytest.mark.usefixtures("unhurried")
def test_a_node_that_cloudly_no_longer_knows_stops_and_takes_a_new_join_token(
    tmp_path: Path, end: Callable[[Place], None]
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            before = epoch(place)

            end(place)
            await place.until_state("enrollment/2", "refused", within_s=200)
            asked, told = len(place.to_cloudly.requests), len(place.supervisor.told)
            await place.world.sleep(DAYS_S)

            more = place.to_cloudly.requests[asked:]
            hourly = DAYS_S / 3600 if end is Place.revoke_node else 0  # it may be readmitted
            assert hourly - 2 <= len(more) <= hourly
            assert set(more) <= {HEARTBEAT, "POST /baseos/v1/nodes/token"}
            assert len(place.supervisor.told) == told
            status = place.status()
            assert not status.healthy
            assert "refused" in " ".join(status.problems)

            place.give_token(place.make_token())
            await place.until_state("enrollment/2", "enrolled", within_s=1300)
            await place.until(lambda: place.node().state == "online")
            assert nodes(place) == [place.uuid]
            assert epoch(place) == before
            last = place.set_release("1.1.0")
            await place.until(lambda: place.node().release == last)

    run_virtual(story)


def test_what_cloudly_wanted_of_a_node_that_it_revoked_is_not_begun(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.set_release("1.1.0", behaviour="pull-fails")
            await place.until_state("app-update/2", "downloading")
            place.to_supervisor.plugged = False
            place.set_release("1.2.0")
            await place.world.sleep(70)
            place.revoke_node()
            await place.until_state("enrollment/2", "refused")

            place.to_supervisor.plugged = True
            await place.world.sleep(600)

            assert place.state("app-update/3") is None

    run_virtual(story)


# -- the identity on disk --------------------------------------------------------------------------


def half(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def another_shape(file: Path) -> None:
    file.write_text('{"node_id": 7, "node_token": ["bnt_secretsecretsecret"]}')


def endless(file: Path) -> None:
    file.write_bytes(b'{"node_id": "' + b"x" * 1_000_000)


@pytest.mark.parametrize("spoil", [half, empty, another_shape, endless])
def test_a_damaged_identity_is_kept_aside_and_the_node_stays_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            caplog.set_level(logging.DEBUG)
            await place.runs("1.0.0")
            await place.stop_agent()
            state, before = place.home / "state.json", epoch(place)
            secret = json.loads(state.read_text())["node_token"]
            spoil(state)
            spoilt = state.read_bytes()

            place.start_agent()
            await place.until_state("enrollment/2", "refused")

            assert (place.home / "state.json.damaged").read_bytes() == spoilt
            assert "identity-lost" in place.kinds("enrollment/2")
            assert secret[:16] not in caplog.text
            assert "bnt_secret" not in caplog.text
            assert secret.encode()[:16] not in (place.home / "journal.db").read_bytes()

            place.give_token(place.make_token())
            await place.until_state("enrollment/2", "enrolled")
            assert nodes(place) == [place.uuid]
            assert epoch(place) == before
            assert state.stat().st_mode & 0o777 == 0o600

    run_virtual(story)


def test_an_identity_that_cannot_be_read_is_not_thrown_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong owner after a restore, a bad sector: it may be good still. Here a directory stands in its place."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            await place.stop_agent()
            place.set_release("1.1.0")
            state = place.home / "state.json"
            state.rename(tmp_path / "kept")
            state.mkdir()
            told, asked = len(place.supervisor.told), len(place.to_cloudly.requests)
            caplog.clear()

            place.start_agent()
            await place.world.sleep(300)

            assert state.is_dir()
            assert len(place.supervisor.told) == told
            assert len(place.to_cloudly.requests) == asked
            lines = [r.getMessage() for r in caplog.records if r.name.startswith("baserunner")]
            assert len(lines) <= 3, lines
            assert "cannot read" in "".join(lines)

            state.rmdir()
            (tmp_path / "kept").rename(state)
            await place.until_state("app-update/2", "succeeded")
            assert place.state("enrollment/2") is None

    run_virtual(story)


def test_an_identity_that_others_could_read_is_private_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            await place.stop_agent()
            state = place.home / "state.json"
            state.chmod(0o644)

            place.start_agent()
            await place.world.sleep(5)

            assert state.stat().st_mode & 0o777 == 0o600
            assert "had mode 644" in caplog.text

    run_virtual(story)
