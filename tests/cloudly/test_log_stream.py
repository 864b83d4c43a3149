"""The log stream of a Supervisor: no answer while it is open, and nothing of it is lost in silence."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from cloudly.balena import log_watch
from cloudly.store.log_chunks import Mark
from cloudly.store.log_file import FILE
from tests.cloudly.given import UUID, Plane, bearer
from tests.cloudly.streaming import KEY, Stream, exchange, kept, places, register, said, texts

pytestmark = pytest.mark.anyio

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"


@asynccontextmanager
async def streaming(*streams: Stream) -> AsyncIterator[Stream]:
    """The streams run; at the end all of them have ended."""
    async with anyio.create_task_group() as tasks:
        for stream in streams:
            tasks.start_soon(stream.run)
        yield streams[0]
        with anyio.fail_after(3600):
            for stream in streams:
                await stream.done.wait()


def code_of(stream: Stream) -> tuple[int | None, str]:
    """A refusal as a Supervisor must get it: without Retry-After, and the connection ends."""
    assert "retry-after" not in stream.headers
    assert stream.headers["connection"] == "close"
    return stream.status, json.loads(stream.body)["code"]


async def test_lines_are_kept_within_two_seconds_and_the_answer_comes_at_the_end(
    plane: Plane,
) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("svc v1 tick 1"), said("Supervisor starting", None))
        await plane.world.sleep(2)
        while_open: list[object] = [stream.status, texts(plane.directory)]
        stream.end()

    assert while_open == [None, ["svc v1 tick 1", "Supervisor starting"]]
    assert stream.status == 201
    assert stream.body == b""
    first, second = kept(plane.directory)
    assert (first.service, first.marks, first.device_at_ms) == (501, Mark.NONE, 1795401546213)
    assert (second.service, second.marks) == (None, Mark.SYSTEM)


async def test_an_idle_stream_stays_open_for_hours(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        await plane.world.sleep(2 * 3600)
        stream.send(said("still here"))
        await plane.world.sleep(2)
        assert stream.status is None
        stream.end()

    assert texts(plane.directory) == ["still here"]


async def test_a_stream_whose_device_lost_power_does_not_stay_for_ever(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_watch, "SILENT_FOR_S", 600)
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        for _ in range(3):
            await plane.world.sleep(log_watch.SILENT_FOR_S - 60)
            stream.send(said("alive"))
        await plane.world.sleep(log_watch.SILENT_FOR_S - 60)
        open_until_then = stream.status is None
        with anyio.fail_after(120):
            await stream.done.wait()

    assert open_until_then
    assert code_of(stream) == (503, "busy")


async def test_a_stream_that_comes_before_its_device_waits_for_the_registration(
    plane: Plane,
) -> None:
    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("Supervisor starting", None))
        await plane.world.sleep(30)
        before: list[object] = [stream.status, texts(plane.directory)]
        await register(plane)
        await plane.world.sleep(4)
        after: list[object] = [stream.status, texts(plane.directory)]
        stream.end()

    assert before == [None, []]
    assert after == [None, ["Supervisor starting"]]
    assert stream.status == 201


async def test_a_body_that_ended_before_the_registration_is_kept_too(plane: Plane) -> None:
    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("Supervisor starting", None))
        stream.end()
        await plane.world.sleep(90)
        assert stream.status is None
        await register(plane)

    assert stream.status == 201
    assert texts(plane.directory) == ["Supervisor starting"]


async def test_what_a_stranger_sends_is_not_read_and_at_last_refused(plane: Plane) -> None:
    async with streaming(Stream(plane.app)) as stream:
        for _ in range(100):
            stream.put(bytes(16 * 1024))
        await plane.world.sleep(5)
        reads = stream.reads
        await plane.world.sleep(log_watch.HELD_FOR_S)

    assert reads <= 4
    assert stream.unread > 90
    assert code_of(stream) == (401, "node-unknown")
    assert not (plane.directory / FILE).exists()


async def test_strangers_find_only_so_many_places(plane: Plane) -> None:
    def stranger(number: int, peer: int) -> Stream:
        return Stream(plane.app, f"{number:032x}", key=f"{number:032x}", peer=f"192.0.2.{peer}")

    of_a_key = [Stream(plane.app) for _ in range(log_watch.HELD_OF_A_KEY + 1)]
    of_a_peer = [stranger(n, 2) for n in range(log_watch.HELD_OF_A_PEER + 1)]
    in_all = [stranger(1000 + n, 3 + n // 50) for n in range(log_watch.HELD_IN_ALL)]
    open_ones = [*of_a_key, *of_a_peer, *in_all]

    async with streaming(*open_ones):
        await plane.world.sleep(1)
        refused = [[one.status for one in some].count(503) for some in (of_a_key, of_a_peer)]
        waiting = [one.status for one in open_ones].count(None)
        await register(plane)
        await plane.world.sleep(3)
        late = Stream(plane.app)
        async with streaming(late):
            late.send(said("a known device is not shut out"))
            await plane.world.sleep(2)
            late.end()
        for one in open_ones:
            one.vanish()

    assert refused == [1, 1]
    assert waiting == log_watch.HELD_IN_ALL
    assert code_of(of_a_key[-1]) == (503, "busy")
    assert texts(plane.directory) == ["a known device is not shut out"]


@pytest.mark.parametrize(
    ("uuid", "key", "expected"),
    [
        (UUID, "", "node-unknown"),
        (OTHER, KEY, "node-mismatch"),
        ("../../etc", "x" * 32, "node-unknown"),
    ],
)
async def test_who_is_nobody_or_somebody_else_is_refused_at_once(
    plane: Plane, uuid: str, key: str, expected: str
) -> None:
    await register(plane)

    async with streaming(Stream(plane.app, uuid.replace("/", "-"), key)) as stream:
        pass

    assert code_of(stream) == (401, expected)
    assert stream.reads == 0


async def test_a_revoked_nodes_stream_ends_within_seconds_and_what_came_is_kept(
    plane: Plane,
) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("before"))
        await plane.world.sleep(1)
        plane.revoke_node(UUID)
        with anyio.fail_after(5):
            await stream.done.wait()
    async with streaming(Stream(plane.app)) as again:
        pass

    assert code_of(stream) == code_of(again) == (401, "node-revoked")
    assert texts(plane.directory) == ["before"]


async def test_a_key_that_was_replaced_ends_its_stream(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        await plane.world.sleep(1)
        await exchange(plane, key="k" * 32)
        with anyio.fail_after(5):
            await stream.done.wait()

    assert code_of(stream) == (401, "node-unknown")


async def test_a_newer_stream_takes_the_place_of_the_older(plane: Plane) -> None:
    await register(plane)
    old, new = Stream(plane.app), Stream(plane.app)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(old.run)
        await plane.world.sleep(1)
        old.send(said("the last that the old one had"))
        tasks.start_soon(new.run)
        with anyio.fail_after(5):
            await old.done.wait()
        new.send(said("and the new one goes on"))
        await plane.world.sleep(2)
        still_open = new.status is None
        new.end()

    assert still_open
    assert code_of(old) == (503, "busy")
    assert new.status == 201
    assert texts(plane.directory) == ["the last that the old one had", "and the new one goes on"]


async def test_a_stream_that_still_waits_does_not_end_one_that_came_after_the_registration(
    plane: Plane,
) -> None:
    waits, live = Stream(plane.app), Stream(plane.app)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits.run)
        waits.send(said("waited"))
        await plane.world.sleep(2.2)
        await register(plane)
        tasks.start_soon(live.run)
        await plane.world.sleep(10)
        live.send(said("lives"))
        await plane.world.sleep(2)
        still_open = live.status is None
        live.end()

    assert still_open
    assert code_of(waits) == (503, "busy")
    assert texts(plane.directory) == ["waited", "lives"]


async def test_of_streams_that_waited_for_one_registration_all_lines_and_the_newest_stay(
    plane: Plane,
) -> None:
    ended, live = Stream(plane.app), Stream(plane.app)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ended.run)
        ended.send(said("first"))
        ended.end()
        await plane.world.sleep(65)
        tasks.start_soon(live.run)
        live.send(said("second"))
        await register(plane)
        await plane.world.sleep(5)
        still_open = live.status is None
        live.end()

    assert still_open
    assert texts(plane.directory) == ["first", "second"]


async def test_two_devices_do_not_disturb_each_other(plane: Plane) -> None:
    await register(plane)
    await register(plane, OTHER, "k" * 32)
    one, other = Stream(plane.app), Stream(plane.app, OTHER, "k" * 32)

    async with streaming(one, other):
        one.send(said("one"))
        other.send(said("other"))
        await plane.world.sleep(2)
        one.end()
        await plane.world.sleep(1)
        other.send(said("goes on when who looked around for both has gone"))
        await plane.world.sleep(2)
        written = texts(plane.directory, OTHER)
        other.end()

    assert texts(plane.directory) == ["one"]
    assert written == ["other", "goes on when who looked around for both has gone"]


async def test_a_sender_that_vanishes_leaves_what_came_and_half_a_line(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("whole"))
        stream.send_raw(b'{"message":"half of a li')
        await plane.world.sleep(0.1)
        stream.vanish()

    whole, half = kept(plane.directory)
    assert whole.text == "whole"
    assert (half.text, half.marks) == ('{"message":"half of a li', Mark.ODD)


async def test_about_to_stop_streams_end_at_once_and_keep_what_came(plane: Plane) -> None:
    await register(plane)
    held = Stream(plane.app, OTHER, "x" * 32)

    async with streaming(Stream(plane.app), held) as stream:
        await plane.world.sleep(3)
        stream.send(said("the last word"))
        plane.closing.now = True
        with anyio.fail_after(1):
            await stream.done.wait()
            await held.done.wait()
    async with streaming(Stream(plane.app)) as late:
        pass

    assert code_of(stream) == code_of(held) == code_of(late) == (503, "busy")
    assert texts(plane.directory) == ["the last word"]


async def test_what_is_no_gzip_ends_the_stream_and_what_came_before_is_kept(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("before"))
        await plane.world.sleep(0.1)
        stream.put(b"\xff" * 100)

    assert code_of(stream) == (400, "malformed")
    before, gap = kept(plane.directory)
    assert (before.text, gap.marks, gap.text) == ("before", Mark.GAP, "unreadable")


async def test_an_encoding_that_we_do_not_read_is_refused(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app, encoding="br")) as stream:
        pass

    assert code_of(stream) == (415, "malformed")


async def test_a_stream_may_be_plain_too(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app, encoding="identity")) as stream:
        stream.send(said("plain"))
        stream.end()

    assert (stream.status, texts(plane.directory)) == (201, ["plain"])


async def test_what_is_more_than_is_kept_is_counted_and_the_count_is_shown_where_it_is_missing(
    directory: Any,
) -> None:
    plane = Plane.begin(directory, logs_lines_per_s=10)
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(*(said(f"flood {n}") for n in range(2000)))
        await plane.world.sleep(10)
        stream.send(*(said(f"later {n}") for n in range(10)))
        await plane.world.sleep(2)
        stream.end()
    lines = kept(plane.directory)
    plane.end()

    texts_ = [line.text for line in lines if not line.marks & Mark.GAP]
    gaps = [(at, line.lost, line.text) for at, line in enumerate(lines) if line.marks & Mark.GAP]
    assert texts_ == [f"flood {n}" for n in range(500)] + [f"later {n}" for n in range(10)]
    assert gaps == [(500, 1500, "rate")]


async def test_a_new_stream_brings_no_new_stock(directory: Any) -> None:
    plane = Plane.begin(directory, logs_lines_per_s=10)
    await register(plane)

    for _ in range(3):
        async with streaming(Stream(plane.app)) as stream:
            stream.send(*(said("flood") for _ in range(600)))
            stream.end()
    lines = kept(plane.directory)
    plane.end()

    assert sum(line.lost for line in lines) + texts_of(lines) == 1800
    assert texts_of(lines) < 600


def texts_of(lines: list[Any]) -> int:
    return sum(not line.marks & Mark.GAP for line in lines)


async def test_a_gzip_bomb_is_one_cut_line_and_takes_its_time(plane: Plane) -> None:
    await register(plane)
    bomb = b"0" * (64 * 1024 * 1024)

    async with streaming(Stream(plane.app)) as stream:
        begun = plane.world.monotonic()
        stream.send_raw(bomb + b"\n")
        stream.send(said("after it"))
        await plane.world.sleep(200)
        stream.end()
    lasted = plane.world.monotonic() - begun

    (cut, after) = kept(plane.directory)
    assert (cut.marks, len(cut.text) < 17_000) == (Mark.ODD | Mark.CUT, True)
    assert cut.text.endswith("more]")
    assert after.text == "after it"
    assert lasted > 50  # at a megabyte a second


async def test_a_store_that_is_behind_holds_the_sender_and_loses_nothing(directory: Any) -> None:
    plane = Plane.begin(directory, logs_lines_per_s=1000)
    await register(plane)
    lines = [said(f"{n} {plane.world.random_bytes(100).hex()}") for n in range(4000)]

    async with streaming(Stream(plane.app)) as stream:
        stream.send(said("makes the file"))
        await plane.world.sleep(2)
        with sqlite3.connect(plane.directory / FILE, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            plane.app.state.logs.of_one_node = 100_000
            for at in range(0, 4000, 50):
                stream.send(*lines[at : at + 50])
            await plane.world.sleep(120)
            unread, waiting = stream.unread, plane.app.state.logs.waiting_bytes
            other.execute("COMMIT")
        other.close()
        await plane.world.sleep(60)
        stream.end()

    assert unread > 50
    assert waiting < 200_000
    assert texts(plane.directory) == ["makes the file", *(one["message"] for one in lines)]
    plane.end()


async def test_places_grow_by_one_across_streams_and_restarts(plane: Plane) -> None:
    await register(plane)
    for text in ("a", "b"):
        async with streaming(Stream(plane.app)) as stream:
            stream.send(said(text))
            stream.end()

    later = plane.again()
    async with streaming(Stream(later.app)) as stream:
        stream.send(said("c"))
        stream.end()
    later.end()

    assert [(one.n, one.line.text) for one in places(plane.directory)] == [
        (1, "a"), (2, "b"), (3, "c"),
    ]  # fmt: skip


async def test_a_log_stream_leaves_the_target_and_other_requests_alone(plane: Plane) -> None:
    await register(plane)

    async with streaming(Stream(plane.app)) as stream:
        stream.send(*(said("noise") for _ in range(1000)))
        answer = await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(KEY))
        plane.world.jump(timedelta(days=1))
        stream.end()

    assert answer.status_code == 200


async def test_credentials_are_kept_out_wherever_a_container_prints_them(plane: Plane) -> None:
    await register(plane)
    secrets = ("bjt_" + "a" * 43, "bnt_" + "b" * 43, "0440d1edd4d7490cab97d2ca0c8c9cc8", KEY)

    async with streaming(Stream(plane.app)) as stream:
        for secret in secrets[:2]:
            stream.send(said(f"joined with {secret}, it says"))
        stream.send(said(f"BALENA_SUPERVISOR_API_KEY={secrets[2]}"))
        stream.send(said(f"my key is {KEY}"))
        stream.send_raw(f"no json {KEY} {secrets[0]}\n".encode())
        stream.end()

    stored = b"".join(one.read_bytes() for one in plane.directory.iterdir())
    assert not [secret for secret in secrets if secret.encode() in stored]
    found = texts(plane.directory)
    assert not [secret for secret in secrets if secret in "".join(found)]
    assert len(found) == 5
    assert all("[redacted]" in text for text in found)
