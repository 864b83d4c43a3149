"""What Prometheus is told, who may ask, and whether the server should be sent requests."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response
from starlette.routing import Route

from cloudly.problems import BadSettings, StoreUnavailable
from cloudly.store import outbox
from cloudly.store.sql import Connection
from tests.cloudly.given import UUID, Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

TOKEN = "canary-metrics-token-0123456789abcdef"
Values = dict[tuple[str, tuple[str, ...]], float]


async def scraped(plane: Plane) -> Values:
    """Name and label values, to value."""
    answer = await plane.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_and_class_and_never_by_node(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()
    await device.beat()
    await plane.device("stranger").beat()
    await plane.client.get(f"/nodes/{UUID}")
    await plane.client.get(f"/{UUID}/made/up")

    found = await scraped(plane)

    beat = "/baseos/v1/nodes/heartbeat"
    assert found["cloudly_requests_total", (beat, "2xx")] == 2
    assert found["cloudly_requests_total", (beat, "4xx")] == 1
    assert found["cloudly_request_seconds_count", (beat,)] == 3
    assert found["cloudly_requests_total", ("/nodes/{node_id}", "2xx")] == 1
    assert found["cloudly_requests_total", ("none", "4xx")] == 1
    assert UUID not in (await plane.client.get("/metrics")).text


async def test_heartbeats_batches_facts_and_commits_are_counted(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()
    before = await scraped(plane)
    await device.tell("app-update/1", "offered", "staged")
    after = await scraped(plane)

    def grew(name: str) -> float:
        return after[name, ()] - before[name, ()]

    assert after["cloudly_heartbeats_total", ()] == 1
    assert (grew("cloudly_journal_batches_total"), grew("cloudly_journal_facts_total")) == (1, 2)
    assert grew("cloudly_commits_total") == grew("cloudly_commit_seconds_count") == 1
    assert grew("cloudly_commit_decisions_sum") == 1
    assert after["cloudly_queue_length", ()] == 0
    assert after["process_resident_memory_bytes", ()] > 1e6


async def test_a_refused_batch_is_not_counted_as_taken(plane: Plane) -> None:
    device = await plane.device().enroll()
    device.fact("app-update/1", "new", "offered")
    await device.ship(device.batch() | {"prev_hash": "00" * 32})

    assert (await scraped(plane))["cloudly_journal_batches_total", ()] == 0


async def test_nodes_are_counted_by_their_state_and_seen_anew_after_a_while(plane: Plane) -> None:
    online, silent = await plane.device().enroll(), await plane.device("n2").enroll()
    await plane.device("n3").enroll()
    await online.beat()
    await silent.beat()
    plane.revoke_node("n3")
    first = await scraped(plane)
    await plane.world.sleep(16 * 60)
    await online.beat(agent_version="0.2.0")
    second = await scraped(plane)

    def nodes(found: Values) -> dict[str, float]:
        return {key[1][0]: value for key, value in found.items() if key[0] == "cloudly_nodes" and value}  # fmt: skip

    assert nodes(first) == {"online": 2, "revoked": 1}
    assert nodes(second) == {"online": 1, "offline": 1, "revoked": 1}


async def test_the_database_is_asked_once_in_a_while_however_often_somebody_scrapes(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    really = plane.store.read

    async def read(question: Any) -> Any:
        asked.append(question)
        return await really(question)

    monkeypatch.setattr(plane.store, "read", read)
    for _ in range(10):
        await scraped(plane)
    at_first = len(asked)
    await plane.world.sleep(16)
    await scraped(plane)

    assert (at_first, len(asked)) == (1, 2)


async def test_a_question_that_had_to_be_asked_twice_counts_nobody_twice(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await plane.device().enroll()
    await device.beat()
    plane.release("1.0.0")
    really = plane.store.read

    async def read(question: Any) -> Any:
        await really(question)  # and the answer was lost on its way
        return await really(question)

    monkeypatch.setattr(plane.store, "read", read)
    found = await scraped(plane)

    assert found["cloudly_nodes", ("online",)] == 1
    assert found["cloudly_deployments", ("ordered",)] == 1


async def test_a_large_fleet_is_counted_a_slice_at_a_time(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudly.metrics.fleet.SLICE", 2)
    for number in range(5):
        device = await plane.device(f"n{number}").enroll()
        await device.beat()
    plane.release("1.0.0")

    found = await scraped(plane)

    assert found["cloudly_nodes", ("online",)] == 5
    assert found["cloudly_deployments", ("ordered",)] == 5


async def test_a_database_that_is_away_is_a_value_and_not_an_error(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_question: Any) -> Any:
        raise StoreUnavailable("gone")

    assert (await scraped(plane))["cloudly_database_up", ()] == 1
    await plane.world.sleep(16)
    monkeypatch.setattr(plane.store, "read", read)
    found = await scraped(plane)

    assert found["cloudly_database_up", ()] == 0
    assert not [key for key in found if key[0] == "cloudly_nodes"]  # an old number would be a lie


async def test_the_oldest_event_that_waits_has_an_age(plane: Plane) -> None:
    def hook(db: Connection) -> None:
        db.execute(
            "INSERT INTO webhook(name, url, kinds, created_at_ms, disabled_why) VALUES('w','u','[]',1,'')"
        )

    plane.store.write_now(hook)
    now = int(plane.world.now().timestamp() * 1000)
    plane.store.write_now(lambda db: outbox.tell(db, "node.odd", {}, now - 7000))

    found = await scraped(plane)

    assert found["cloudly_webhook_deliveries_waiting", ()] == 1
    assert found["cloudly_webhook_oldest_waiting_seconds", ()] == pytest.approx(7, abs=0.1)


async def test_deployments_are_counted_by_state(plane: Plane) -> None:
    device = await plane.device().enroll()
    plane.release("1.0.0")
    await device.tell("app-update/1", "succeeded", deployment=plane.release("2.0.0"))

    found = await scraped(plane)

    assert found["cloudly_deployments", ("succeeded",)] == 1
    assert sum(value for key, value in found.items() if key[0] == "cloudly_deployments") == 1


# -- who may read them


@pytest.fixture
async def guarded(
    directory: Path, database_url: str | None, tmp_path: Path, anyio_backend: object
) -> AsyncIterator[Plane]:
    del anyio_backend
    file = tmp_path / "metrics-token"
    file.write_text(TOKEN + "\n")
    plane = Plane.begin(directory, database_url=database_url, metrics_token_file=file)
    yield plane
    plane.end()


def stranger(plane: Plane) -> httpx.AsyncClient:
    """Somebody on another machine."""
    there = httpx.ASGITransport(app=plane.app, client=("192.0.2.7", 4711))
    return httpx.AsyncClient(transport=there, base_url="http://localhost")


async def test_without_a_token_only_this_machine_may_read(plane: Plane) -> None:
    async with stranger(plane) as client:
        assert (await client.get("/metrics")).status_code == 403
    by_name = await plane.client.get("/metrics", headers={"host": "evil.example"})
    proxied = await plane.client.get("/metrics", headers={"x-forwarded-for": "192.0.2.7"})

    assert (by_name.status_code, proxied.status_code) == (403, 403)
    assert (await plane.client.get("/metrics")).status_code == 200


async def test_with_a_token_it_is_the_token_that_counts(guarded: Plane) -> None:
    right, wrong = ({"authorization": f"Bearer {word}"} for word in (TOKEN, TOKEN[:-1] + "x"))
    async with stranger(guarded) as client:
        answers = [await client.get("/metrics", headers=one) for one in (right, wrong, {})]
    here = await guarded.client.get("/metrics")

    assert [one.status_code for one in (*answers, here)] == [200, 401, 401, 401]
    assert all(TOKEN not in one.text for one in answers)


async def test_the_token_may_be_changed_and_a_file_that_is_gone_lets_nobody_in(
    guarded: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    file = guarded.settings.metrics_token_file
    assert file is not None
    file.write_text("another-token-of-the-metrics")
    old, new = [
        await guarded.client.get("/metrics", headers={"authorization": f"Bearer {word}"})
        for word in (TOKEN, "another-token-of-the-metrics")
    ]
    file.unlink()
    gone = await guarded.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})

    assert (old.status_code, new.status_code) == (401, 200)
    assert code_of(gone) == (503, "busy")
    assert "CLOUDLY_METRICS_TOKEN_FILE" in caplog.text


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough"])
def test_a_token_that_protects_nothing_is_refused_at_the_start(
    directory: Path, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)

    with pytest.raises(BadSettings, match="CLOUDLY_METRICS_TOKEN_FILE") as refused:
        Plane.begin(directory, metrics_token_file=file)

    assert not content or content not in str(refused.value)


def test_metrics_can_be_off(directory: Path) -> None:
    plane = Plane.begin(directory, metrics=False)
    plane.end()

    assert "/metrics" not in {route.path for route in plane.app.routes if isinstance(route, Route)}


# -- readiness


async def ready(plane: Plane) -> tuple[int, dict[str, str]]:
    answer = await plane.client.get("/readyz")
    body = answer.json()
    assert body["ready"] == (answer.status_code == 200)
    return answer.status_code, body["problems"]


async def test_a_server_whose_database_answers_is_ready(plane: Plane) -> None:
    assert await ready(plane) == (200, {})


async def test_about_to_stop_is_not_ready_and_still_answers(plane: Plane) -> None:
    plane.closing.now = True

    status, problems = await ready(plane)

    assert (status, list(problems)) == (503, ["stopping"])
    assert (await plane.client.get("/healthz")).status_code == 200
    await plane.device().enroll()


async def test_a_database_that_is_away_is_not_ready_and_where_it_is_is_only_logged(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def read(_question: Any) -> Any:
        raise StoreUnavailable(
            "no way to postgresql://cloudly:S3CRET@db.example/cloudly:"
            " Connect call failed ('10.1.2.3', 5432)"
        )

    monkeypatch.setattr(plane.store, "read", read)
    await ready(plane)
    status, problems = await ready(plane)

    assert (status, problems) == (503, {"database": "the database does not answer"})
    assert caplog.text.count("('10.1.2.3', 5432)") == 1
    assert "S3CRET" not in caplog.text
    assert (await plane.client.get("/healthz")).status_code == 200  # restarting us helps nobody


async def test_a_database_that_hangs_is_not_ready_after_two_seconds(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_question: Any) -> Any:
        await plane.world.sleep(3600)

    monkeypatch.setattr(plane.store, "read", read)
    began = plane.world.monotonic()
    status, problems = await ready(plane)

    assert (status, list(problems)) == (503, ["database"])
    assert plane.world.monotonic() - began == pytest.approx(2, abs=0.1)


async def test_a_schema_that_another_cloudly_moved_on_is_not_ready(plane: Plane) -> None:
    plane.store.write_now(
        lambda db: db.execute("UPDATE alembic_version SET version_num='9999'").rowcount
    )

    status, problems = await ready(plane)

    assert (status, list(problems)) == (503, ["schema"])
    assert re.search("9999", problems["schema"])


async def test_a_job_that_fails_is_not_ready_until_it_works_again(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    fails = [True]

    async def work() -> None:
        if fails[0]:
            raise OSError("the disk is full")

    jobs = plane.app.state.recurring
    jobs.add("odd-job", 60, work)
    await jobs.once("odd-job")
    first = await ready(plane)
    fails[0] = False
    await jobs.once("odd-job")

    assert first == (503, {"job odd-job": "job odd-job failed"})
    assert "the disk is full" in caplog.text
    assert await ready(plane) == (200, {})


# -- request ids


async def test_an_answer_carries_the_id_of_its_request(plane: Plane) -> None:
    ours = [(await plane.client.get("/healthz")).headers["x-request-id"] for _ in range(3)]
    theirs = await plane.client.get("/healthz", headers={"x-request-id": "trace-0123456789"})
    odd = await plane.client.get("/healthz", headers={"x-request-id": 'evil" id\t\x7f'})

    assert len(set(ours)) == 3
    assert theirs.headers["x-request-id"] == "trace-0123456789"
    assert odd.headers["x-request-id"] not in {*ours, 'evil" id\t\x7f'}


async def test_a_handler_that_breaks_is_counted_as_our_fault(plane: Plane) -> None:
    async def breaks(_request: object) -> Response:
        raise RuntimeError("a bug")

    plane.app.router.routes.append(Route("/breaks", breaks))
    with pytest.raises(RuntimeError, match="a bug"):
        await plane.client.get("/breaks")

    assert (await scraped(plane))["cloudly_requests_total", ("/breaks", "5xx")] == 1
    assert json.loads((await plane.client.get("/readyz")).text)["ready"]
