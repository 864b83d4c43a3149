"""What a hostile reviewer broke, each as the story that would have caught it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from baserunner import orders
from baserunner.logs import RedactingFormatter
from interfaces.desired import UpdatePolicy
from simulators.world import run_virtual
from tests.world.kit import Place, a_place

POLICY = UpdatePolicy(
    health_soak_s=10, health_deadline_s=60, apply_deadline_s=300, max_apply_attempts=2
)


async def on_release(place: Place, version: str = "1.0.0") -> None:
    place.start_agent()
    await place.until_state("enrollment/1", "enrolled")
    place.set_release(version, policy=POLICY)
    await place.until_state("app-update/1", "succeeded")


async def dark_in(place: Place, stream: str, state: str, dark_s: float) -> None:
    """Let the attempt come to that state, cut the power to the agent there, and leave it off for so long."""
    await place.until_state(stream, state)
    await place.cut_power_to_agent()
    await place.world.sleep(dark_s)
    place.start_agent()


def test_hours_in_the_dark_do_not_count_as_attempts_to_apply(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            place.to_supervisor.plugged = True
            place.points = kill_at("after-commit:apply-requested", place)
            await place.stop_agent()
            place.start_agent()
            place.set_release("1.1.0", policy=POLICY)
            await place.until_state("app-update/2", "applying")
            await place.world.sleep(2000)

            place.points = lambda _: None
            place.start_agent()
            await place.until_state("app-update/2", "succeeded")

            assert "apply-failed" not in place.kinds("app-update/2")

    run_virtual(story)


def kill_at(point: str, place: Place) -> Any:
    """Cut the power to the agent when it first passes that point."""

    def points(name: str) -> None:
        if name == point:
            place.lives += 1
            before = place.root / f"data-{place.lives - 1}"
            shutil.copytree(before, place.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
            place.agent_scope.cancel()

    return points


def test_hours_in_the_dark_do_not_fail_a_rollback_that_nobody_asked_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            place.set_release("1.1.0", policy=POLICY, behaviour="crash-after-start")

            await dark_in(place, "app-update/2", "rolling-back", 700)

            await place.until_state("app-update/2", "rolled-back")

    run_virtual(story)


def test_a_target_that_changes_before_anything_was_applied_is_given_way_to_under_the_lock(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            (place.root / "locks" / "resin-updates.lock").touch()  # a neighbour holds it up
            place.set_release("1.1.0", policy=POLICY)
            await place.until_state("app-update/2", "applying")

            place.set_release("1.2.0", policy=POLICY)
            await place.until_state("app-update/2", "superseded")
            (place.root / "locks" / "resin-updates.lock").unlink()
            await place.until_state("app-update/3", "succeeded")

            assert "staged" in place.kinds("app-update/3")

    run_virtual(story)


@pytest.mark.parametrize(
    ("status", "media_type", "body"),
    [
        (409, "application/problem+json", {"title": "no", "status": 409, "code": "fenced"}),
        (422, "application/problem+json", {"title": "no", "status": 422, "code": "malformed"}),
    ],
)
def test_a_journal_that_cloudly_refuses_is_said_aloud(
    tmp_path: Path, status: int, media_type: str, body: dict[str, Any]
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            refuse_journals(place, status, media_type, body)
            place.start_agent()
            await place.until(lambda: bool(said_degraded(place)), within_s=3600)

            assert any("lane" in why or "not shipped" in why for why in said_degraded(place))

    run_virtual(story)


def refuse_journals(place: Place, status: int, media_type: str, body: dict[str, Any]) -> None:
    inner = place.to_cloudly.inner

    class Refusing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/journal"):
                return answer(status, media_type, json.dumps(body).encode())
            return await inner.handle_async_request(request)

    place.to_cloudly.inner = Refusing()


def answer(status: int, media_type: str, body: bytes) -> httpx.Response:
    """An answer as it comes from a wire: a stream that is read once."""
    headers = {"content-type": media_type}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def said_degraded(place: Place) -> list[str]:
    """What the node's last report at Cloudly says."""
    rows = place.store.read_now(
        lambda db: db.execute("SELECT reported FROM node_status").fetchall()
    )
    return list(json.loads(rows[0][0])["degraded"]) if rows else []


def test_a_proxy_that_calls_a_batch_too_large_gets_smaller_ones(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            inner = place.to_cloudly.inner
            sizes: list[int] = []

            class Narrow(httpx.AsyncBaseTransport):
                async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                    size = int(request.headers["content-length"])
                    if request.url.path.endswith("/journal"):
                        sizes.append(size)
                        if size > 1500:
                            return answer(413, "text/html", b"<h1>too large</h1>")
                    return await inner.handle_async_request(request)

            place.to_cloudly.inner = Narrow()
            await on_release(place)
            await place.until(lambda: place.shipped_core() >= len(place.facts("app-update/1")))

            assert max(sizes) > 1500
            assert min(sizes) <= 1500

    run_virtual(story)


def test_a_release_that_was_given_up_and_is_still_wanted_is_answered_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            place.set_release("1.1.0", policy=POLICY)
            await place.until_state("app-update/2", "succeeded")
            restore_the_first_target(place)

            await place.until(lambda: any("over" in why for why in said_degraded(place)))

    run_virtual(story)


def restore_the_first_target(place: Place) -> None:
    """As a backup of Cloudly would: the target is the first deployment again."""

    def restore(db: Any) -> None:
        first = db.execute("SELECT deployment FROM deployment ORDER BY generation").fetchone()[0]
        db.execute("UPDATE desired SET deployment=?", (first,))

    place.store.write_now(restore)


def test_a_given_token_that_was_refused_gives_way_to_the_deployers(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.home.mkdir(parents=True)
            (place.home / "join-token").write_text("bjt_" + "x" * 43)
            place.start_agent()

            await place.until_state("enrollment/1", "enrolled")

            assert "register-refused" in place.kinds("enrollment/1")

    run_virtual(story)


def test_orders_given_as_root_belong_to_the_agents_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to someone else")
    home = tmp_path / "baseos"
    home.mkdir()
    os.chown(home, 1001, 1001)

    orders.place(home, "one", orders.Order(kind=orders.OrderKind.CHECK, by="root"))

    assert (home / "orders").stat().st_uid == 1001


def test_a_pipe_in_the_spool_does_not_hold_up_the_agent(tmp_path: Path) -> None:
    orders.prepare(tmp_path)
    os.mkfifo(tmp_path / "orders" / "trap.order")

    assert orders.take_orders(tmp_path) == []


def test_a_neighbours_text_cannot_forge_a_log_line() -> None:
    record = logging.LogRecord(
        "n", logging.WARNING, "", 0, "it said %s", ("a\n2026 info forged \x1b[2K",), None
    )

    line = RedactingFormatter().format(record)

    assert "\n" not in line
    assert "\x1b" not in line


def test_a_check_says_what_cloudly_wants(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            place.set_release("1.1.0", policy=POLICY)

            answer_at = orders.place(
                place.home, "one", orders.Order(kind=orders.OrderKind.CHECK, by="test")
            )
            await place.until(answer_at.exists)

            said = orders.OrderAnswer.model_validate_json(answer_at.read_bytes())
            assert said.done
            assert "release 1.1.0" in said.said

    run_virtual(story)


def test_a_check_without_a_way_to_cloudly_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await on_release(place)
            place.to_cloudly.plugged = False

            answer_at = orders.place(
                place.home, "one", orders.Order(kind=orders.OrderKind.CHECK, by="test")
            )
            await place.until(answer_at.exists)

            said = orders.OrderAnswer.model_validate_json(answer_at.read_bytes())
            assert not said.done
            assert "cannot be reached" in said.said

    run_virtual(story)
