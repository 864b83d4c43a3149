"""What Cloudly and the Supervisor might say on a bad day: bounded, one problem each, no crash, and the right end."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from baserunner.orders import OrderKind
from interfaces.problem import PROBLEM_MEDIA_TYPE
from journal.facts import Fact
from simulators.world import SimWorld, run_virtual
from tests.world.kit import Instead, Place, a_place
from tests.world.outside import Afterwards, Stream, altered

JSON = {"content-type": "application/json"}
MIB = 1 << 20
Lie = Callable[[SimWorld], httpx.Response]


def said(body: bytes | str, status: int = 200, encoding: str = "identity") -> Lie:
    headers = {**JSON, "content-encoding": encoding}
    return lambda _: httpx.Response(status, stream=Whole(body), headers=headers)


class Whole(httpx.AsyncByteStream):
    """A body as it travels: nobody has unpacked it yet."""

    def __init__(self, body: bytes | str) -> None:
        self._body = body.encode() if isinstance(body, str) else body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


def streamed(pieces: Callable[[], Iterator[bytes]], every_s: float) -> Lie:
    return lambda world: httpx.Response(
        200, headers=JSON, stream=Stream(world, pieces(), every_s=every_s)
    )


# fmt: off
LIES: dict[str, Lie] = {
    "captive portal":  lambda _: httpx.Response(200, html="<html><form>Welcome, guest</form></html>"),
    "redirect":        lambda _: httpx.Response(302, headers={"location": "http://portal.invalid/"}),
    "log in first":    lambda _: httpx.Response(511, html="<html>log in</html>"),
    "plain text":      lambda _: httpx.Response(200, text="OK"),
    "nothing":         said(b""),
    "half":            said(b'{"node_id": "9acabca4'),
    "a list":          said(b"[1, 2, 3]"),
    "null":            said(b"null"),
    "empty object":    said(b"{}"),
    "deep":            said("[" * 100_000),
    "deep object":     said('{"a":' * 50_000),
    "not UTF-8":       said(b'{"node_id": "\xff\xfe"}'),
    "NaN":             said(b'{"heartbeat_every_s": NaN, "appState": NaN}'),
    "many digits":     said(b'{"seq": ' + b"9" * 5000 + b"}"),
    "gzip bomb":       said(gzip.compress(b" " * (100 * MIB)), encoding="gzip"),
    "no such status":  said(b"{}", 299),
    "huge":            streamed(lambda: itertools.repeat(b"x" * 65_536), 0.0),
    "never ending":    streamed(lambda: itertools.repeat(b" " * 100), 1.0),
    "dripping":        streamed(lambda: itertools.repeat(b" "), 1.0),
    "silence":         streamed(lambda: iter([b" "]), 10_000.0),
}
# fmt: on


def liar(place: Place, inner: httpx.AsyncBaseTransport, path: str) -> Instead:
    """Answers each ask for `path` with one lie after the other, and then with the truth."""
    lies = iter(LIES.values())

    def say(request: httpx.Request) -> httpx.Response | None:
        lie = next(lies, None) if request.url.path.endswith(path) else None
        return None if lie is None else lie(place.world)

    return Instead(inner, say)


def spans_s(facts: list[Fact], begin: str, end: str) -> list[float]:
    """How long it took from each `begin` to the fact that followed it, where that was `end`."""
    return [
        (after.mono_ms - before.mono_ms) / 1000
        for before, after in itertools.pairwise(facts)
        if (before.kind, after.kind) == (begin, end)
    ]


def test_register_takes_no_lie_for_an_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.to_cloudly.inner = lied = liar(place, place.to_cloudly.inner, "/register")
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled", within_s=20_000, look_s=10)

            assert lied.fired == len(LIES)
            spans = spans_s(
                place.facts("enrollment/1"), "register-requested", "register-unanswered"
            )
            assert len(spans) == len(LIES)
            assert max(spans) <= 31

    run_virtual(story)


def test_heartbeat_takes_no_lie_for_an_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.to_cloudly.inner = lied = liar(place, place.to_cloudly.inner, "/heartbeat")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded", within_s=20_000, look_s=10)

            assert lied.fired == len(LIES)
            facts = [fact for fact in place.facts("heartbeat/1") if not fact.is_note]
            spans = spans_s(facts, "heartbeat-sent", "heartbeat-unanswered")
            assert len(spans) == len(LIES)
            assert max(spans) <= 60

    run_virtual(story)


def test_shipping_takes_no_lie_for_an_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.to_cloudly.inner = lied = liar(place, place.to_cloudly.inner, "/journal")
            place.set_release("1.0.0")
            await place.until(lambda: lied.fired == len(LIES), within_s=20_000, look_s=10)
            await place.world.sleep(400)

            assert place.state("app-update/1") == "succeeded"
            assert place.core_at_cloudly() == place.core_on_device()
            assert place.node().state == "online"

    run_virtual(story)


@pytest.mark.parametrize("path", ["/v2/state/status", "/v1/device", "/v1/update"])
def test_the_supervisors_lies_delay_an_update_and_no_more(tmp_path: Path, path: str) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.to_supervisor.inner = lied = liar(place, place.to_supervisor.inner, path)
            for version in ("1.1.0", "1.2.0"):
                last = place.set_release(version)
                await place.until(
                    lambda last=last: place.node().release == last,  # type: ignore[misc]
                    within_s=6000,
                    look_s=2,
                )

            assert lied.fired >= 3
            assert place.state("app-update/3") == "succeeded"

    run_virtual(story)


# -- the right shape, and values that cannot be meant ----------------------------------------------


def changed(real: httpx.AsyncBaseTransport, path: str, **values: object) -> Instead:
    """A well-formed answer to the first ask for `path`, with these values in it; then the real ones."""
    left = [values]

    def say(request: httpx.Request) -> httpx.Response | None:
        if not left or not request.url.path.endswith(path):
            return None
        body = {**WELL_FORMED[path], **left.pop()}
        return httpx.Response(200, content=json.dumps(body), headers=JSON)

    return Instead(real, say)


WELL_FORMED: dict[str, dict[str, object]] = {
    "/heartbeat": {
        "incarnation": "i",
        "server_time_ms": 0,
        "desired": {"generation": 0},
        "heartbeat_every_s": 60,
    },
    "/journal": {
        "incarnation": "i",
        "ack": {"epoch": "e", "lane": "core", "seq": 0, "hash": "0" * 64},
        "next_after_s": 0,
    },
}
INFINITE = float("inf")  # json writes Infinity
TARGET = {"deployment": "d", "release": "r", "version": "v"}


def wanting(**app: object) -> dict[str, object]:
    return {"desired": {"generation": 1, "app": {**TARGET, **app}}}


# fmt: off
SILLY: dict[str, tuple[str, dict[str, object]]] = {
    "no interval":        ("/heartbeat", {"heartbeat_every_s": INFINITE}),
    "an interval of NaN": ("/heartbeat", {"heartbeat_every_s": float("nan")}),
    "an interval of 0":   ("/heartbeat", {"heartbeat_every_s": 0}),
    "an interval before": ("/heartbeat", {"heartbeat_every_s": -60}),
    "another age":        ("/heartbeat", {"server_time_ms": 10**30}),
    "nothing desired":    ("/heartbeat", {"desired": None}),
    "generation":         ("/heartbeat", {"desired": {"generation": 2**60}}),
    "a path for an id":   ("/heartbeat", wanting(deployment="../../etc")),
    "endless patience":   ("/heartbeat", wanting(policy={"download_deadline_s": INFINITE})),
    "a great release":    ("/heartbeat", wanting(images=[{"service": "é" * 200, "image": "é" * 500}] * 100)),
    "no hash":            ("/heartbeat", {"acks": [{"epoch": "e", "lane": "core", "seq": 1, "hash": "x"}]}),
    "rest for ever":      ("/journal", {"next_after_s": INFINITE}),
    "rest before":        ("/journal", {"next_after_s": -1}),
    "no bytes":           ("/journal", {"max_bytes": 0}),
    "another's ack":      ("/journal", {}),
}
# fmt: on


def test_values_that_cannot_be_meant_are_one_problem_each_and_pass(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path, every_s=20) as place:
            await place.runs("1.0.0")
            real = place.to_cloudly.inner
            for name, (path, values) in SILLY.items():
                place.to_cloudly.inner = lied = changed(real, path, **values)
                place.order(OrderKind.CHECK)
                await place.until(lambda lied=lied: lied.fired == 1)  # type: ignore[misc]
                place.to_cloudly.inner = real
                await place.until(lambda: place.node().state == "online")
                assert not place.agent_ended.is_set(), name

            await place.world.sleep(400)
            assert place.core_at_cloudly() == place.core_on_device()
            last = place.set_release("1.1.0")
            await place.until(lambda: place.node().release == last)

    run_virtual(story)


def test_an_order_too_great_to_be_written_down_is_not_begun_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            real = place.to_cloudly.inner

            async def too_great(
                request: httpx.Request, answer: httpx.Response
            ) -> httpx.Response | None:
                if request.url.path.endswith("/heartbeat"):
                    return altered(answer, **SILLY["a great release"][1])
                return None

            place.to_cloudly.inner = Afterwards(real, too_great)
            await place.world.sleep(300)
            assert place.state("app-update/2") is None
            assert place.node().state == "degraded"
            assert "deployment d is not begun" in place.node().state_detail
            assert len([r for r in place.kinds("heartbeat/1") if r == "heartbeat-answered"]) >= 5

            place.to_cloudly.inner = real
            last = place.set_release("1.1.0")
            await place.until(lambda: place.node().release == last)
            await place.until(lambda: place.node().state == "online")

    run_virtual(story)


def test_an_interval_of_weeks_is_a_day_at_most(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.to_cloudly.inner = changed(
                place.to_cloudly.inner, "/heartbeat", heartbeat_every_s=2e6
            )
            await place.enrolled()
            await place.until(lambda: "heartbeat-answered" in place.kinds("heartbeat/1"))

            answered = place.facts("heartbeat/1")[-1]
            assert 0.9 * 86_400 <= answered.values["next_s"] <= 1.1 * 86_400

    run_virtual(story)


def test_an_interval_of_nothing_is_a_second_at_least(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path, every_s=0.05) as place:
            await place.enrolled()
            await place.world.sleep(60)

            assert 50 <= place.to_cloudly.requests.count("POST /baseos/v1/nodes/heartbeat") <= 62

    run_virtual(story)


SUPERVISORS_NONSENSE: list[dict[str, object]] = [
    {"release": "not an id!"},
    {"release": "x" * 1000},
    {"overallDownloadProgress": float("nan")},
    {"overallDownloadProgress": 1e308},
    {"overallDownloadProgress": -5},
    {"appState": 7},
    {"containers": {"main": "Running"}},
    {"containers": [{"status": "x" * 100_000, "serviceName": "main"}]},
    {"images": [{"name": None}]},
    {"os_version": "x" * 100_000},
    {"supervisor_version": "x" * 100_000},
    {"ip_address": "x" * 100_000},
]


def test_a_supervisor_that_talks_nonsense_is_not_available_and_nothing_worse(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path, every_s=10) as place:
            await place.runs("1.0.0")
            real = place.to_supervisor.inner
            last = place.set_release("1.1.0")
            for nonsense in SUPERVISORS_NONSENSE:
                place.to_supervisor.inner = lied = Altered(real, nonsense)
                await place.world.sleep(30)
                assert not place.agent_ended.is_set(), nonsense
                assert lied.fired, nonsense
                assert place.node().state == "online", nonsense
                place.to_supervisor.inner = real
                await place.world.sleep(4)

            await place.until(lambda: place.node().release == last, within_s=4000)

    run_virtual(story)


class Altered(httpx.AsyncBaseTransport):
    """Puts values into every JSON answer that has such a field."""

    def __init__(self, inner: httpx.AsyncBaseTransport, values: dict[str, object]) -> None:
        self._inner = inner
        self._values = values
        self.fired = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        raw = await answer.aread()
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return answer
        body = json.loads(raw)
        if not self._values.keys() & body.keys():
            return answer
        self.fired += 1
        return httpx.Response(
            answer.status_code, content=json.dumps({**body, **self._values}), headers=JSON
        )


# -- not now ---------------------------------------------------------------------------------------


def in_two_minutes(world: SimWorld) -> str:
    return format_datetime(world.now() + timedelta(seconds=120), usegmt=True)


# fmt: off
RETRY_AFTER: dict[str, tuple[Callable[[SimWorld], str], float, float]] = {
    "seconds":  (lambda _: "120",                           120, 133),
    "date":     (in_two_minutes,                            118, 133),
    "zero":     (lambda _: "0",                             0.5, 1.1),
    "garbage":  (lambda _: "soon, we hope",                 0.5, 1.1),
    "negative": (lambda _: "-5",                            0.5, 1.1),
    "past":     (lambda _: "Thu, 01 Jan 1970 00:00:00 GMT", 0.5, 1.1),
    "no date":  (lambda _: "Fri, 31 Dec 99999 23:59:59 GMT", 0.5, 1.1),
    "far":      (lambda _: "Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3960),
    "huge":     (lambda _: "9" * 400,                       3600, 3960),
}
"""What is asked, and between how many seconds the next heartbeat comes."""
# fmt: on


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.usefixtures("unhurried")
def test_retry_after_is_obeyed_and_capped_at_an_hour(tmp_path: Path, status: int) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            real = place.to_cloudly.inner
            for name, (header, least_s, most_s) in RETRY_AFTER.items():
                asked_at: list[float] = []

                def say(request: httpx.Request) -> httpx.Response | None:
                    if not request.url.path.endswith("/heartbeat"):
                        return None
                    asked_at.append(place.world.monotonic())  # noqa: B023 - used within this turn
                    if len(asked_at) > 1:  # noqa: B023
                        return None
                    return httpx.Response(
                        status,
                        content=json.dumps({"title": "Busy", "status": status, "code": "busy"}),
                        headers={
                            "content-type": PROBLEM_MEDIA_TYPE,
                            "retry-after": header(place.world),  # noqa: B023
                        },
                    )

                place.to_cloudly.inner = Instead(real, say)
                await place.until(lambda: len(asked_at) == 2, within_s=5000)  # noqa: B023

                assert least_s <= asked_at[1] - asked_at[0] <= most_s, name

    run_virtual(story)


def test_nobody_on_the_device_can_hurry_a_heartbeat_that_was_asked_to_wait(tmp_path: Path) -> None:
    """The end of an update wants a heartbeat at once; Retry-After binds it too."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "downloading", "staged", "applying")
            no = httpx.Response(429, headers={"retry-after": "900"})
            asked: list[float] = []

            def say(request: httpx.Request) -> httpx.Response | None:
                if request.url.path.endswith("/heartbeat"):
                    asked.append(place.world.monotonic())
                    return no
                return None

            place.to_cloudly.inner = Instead(place.to_cloudly.inner, say)
            await place.until_state("app-update/1", "succeeded")
            await place.until(lambda: bool(asked))
            await place.world.sleep(800)

            assert len(asked) == 1

    run_virtual(story)
