"""The log stream: the recorded lines in the recorded order, and what becomes of them when nobody takes them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from simulators.supervisor.log_stream import MAX_BUFFER, MAX_MESSAGE
from simulators.supervisor.state import Life
from simulators.world import run_virtual
from tests.simulators.lab import COMMITS
from tests.simulators.recorded_backend import METRICS, in_order_of_time, recorded_rows
from tests.simulators.recorded_lab import RecordedLab, a_recorded_lab
from tests.simulators.test_recorded_backend import Story, attempt, updated

CONTENT = re.compile(r"sha256:[0-9a-f]{64}(?=')|container [0-9a-f]{12}|image [0-9a-f]{12} ")


def words(lines: Iterable[dict[str, Any]]) -> list[str]:
    """The system messages, in order of their time, without ids of contents and containers."""
    told = [line for line in in_order_of_time(lines) if line.get("isSystem")]
    return [
        CONTENT.sub("<content>", line["message"]) if "@" not in line["message"] else line["message"]
        for line in told
    ]


def recorded_lines(name: str, *seqs: int) -> list[dict[str, Any]]:
    rows = [row for row in recorded_rows(name) if row["seq"] in seqs]
    return [line for row in rows for line in row["log_lines"]]


def told(tmp: Path, story: Story, *, first: int = 1, last: int = 8, **options: Any) -> RecordedLab:
    rows = recorded_rows("first-boot", first, last)
    return attempt(tmp, rows, story, name="lab-initial", **options)


def test_a_first_boot_tells_what_was_recorded_and_it_arrives_in_the_recorded_order(
    tmp_path: Path,
) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)

    lab = told(tmp_path, story)

    recorded = [line["message"] for line in recorded_lines("first-boot", 1)]
    assert [line["message"] for line in lab.backend.streams[0].lines] == recorded
    assert recorded[-1] == "Supervisor starting", "the line that opened the stream comes last"
    assert lab.backend.asked[:2] == ["POST logs", "POST register"]
    assert lab.backend.streams[0].key == lab.supervisor.kept.identity.device_key
    assert lab.backend.complaints == []


def test_an_update_tells_what_was_recorded(tmp_path: Path) -> None:
    rows = recorded_rows("updates", 1, 8)

    lab = attempt(tmp_path, rows, updated, name="lab-initial", registered=True)

    ours = [line for line in lab.backend.lines if line.get("isSystem")]
    in_update = ours[-len(words(recorded_lines("updates", 13))) :]
    assert words(in_update) == words(recorded_lines("updates", 13))


def test_a_first_app_tells_what_was_recorded(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend.skip_to(recorded_rows("first-boot", 20, 24))
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(40)

    lab = told(tmp_path, story)

    ours = words(line for stream in lab.backend.streams[1:] for line in stream.lines)
    recorded = words(recorded_lines("first-boot", 21))
    assert ours == ['Applying configuration change {"SUPERVISOR_POLL_INTERVAL":"60000"}', *recorded]


def test_a_lock_and_a_target_that_is_refused_are_told_in_the_recorded_words(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await updated(lab)
        (lab.locks / "updates.lock").touch()
        lab.backend.skip_to(recorded_rows("updates", 23, 26))
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(60)
        rejected = dict(lab.backend._targets[-1]["body"])
        device = {
            key: part for key, part in next(iter(rejected.values())).items() if key != "config"
        }
        lab.backend._targets.append(
            {"headers": {"ETag": '"bad"'}, "body": {lab.supervisor.kept.identity.uuid: device}}
        )
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(60)

    rows = recorded_rows("updates", 1, 8)
    lab = attempt(tmp_path, rows, story, name="lab-initial", registered=True)

    ours = words(lab.backend.lines)
    locked = words(recorded_lines("updates", 27))
    at = ours.index(locked[-1])
    assert ours[at - 2 : at + 1] == locked
    refusal = words(recorded_lines("updates", 40))[2:4]
    assert [line for line in ours if line in refusal] == refusal
    assert refusal[0] == "Could not move to new release: Invalid target state."


def test_a_target_for_another_device_is_told_to_nobody(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend._targets.append({"headers": {"ETag": '"other"'}, "body": {"f" * 32: {}}})
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(60)

    lab = told(tmp_path, story)

    assert lab.supervisor.follower.refused
    assert "Could not move" not in str(lab.backend.lines)


def test_a_container_prints_with_its_service_id_and_says_which_stream(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend.skip_to(recorded_rows("first-boot", 20, 24))
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(100)

    lab = told(tmp_path, story, chatter_s=20.0)

    printed = [line for line in lab.backend.lines if "serviceId" in line]
    recorded = recorded_lines("first-boot", 25)[0]
    assert list(printed[0]) == list(recorded)
    assert {line["serviceId"] for line in printed} == {recorded["serviceId"]}
    assert [line["message"] for line in printed[:3]] == [
        "main starting",
        "main tick 1",
        "main err 1",
    ]
    assert [line["isStdErr"] for line in printed[:3]] == [False, False, True]


def test_the_stream_ends_after_5_s_of_silence_and_opens_again_10_s_after_it_opened(
    tmp_path: Path,
) -> None:
    """Recorded: opened 02:46:15, a line at 02:46:20.6 found it closed, opened again 02:46:25."""

    async def story(lab: RecordedLab) -> None:
        lab.supervisor.log_stream = None
        await lab.pass_(30)
        assert lab.supervisor.source is not None
        lab.supervisor.log_stream = lab.supervisor._log_stream(lab.supervisor.source)
        lab.backend.streams.clear()
        lab.supervisor.teller.say("first")
        await lab.pass_(10.4)
        lab.supervisor.teller.say("second")
        await lab.pass_(20)
        lab.supervisor.teller.say("third")
        await lab.pass_(20)

    lab = told(tmp_path, story)

    first, second, third = lab.backend.streams
    assert first.arrived_s[0] - first.at_s == pytest.approx(5.1, abs=0.11), "the grace"
    assert first.ended_s is not None
    assert first.ended_s - first.at_s == pytest.approx(10.1, abs=0.6), "5 s after its line"
    assert second.at_s - first.at_s == pytest.approx(10.4, abs=0.1)
    assert third.at_s - second.at_s == pytest.approx(20, abs=0.1)


def test_lines_of_a_connection_that_failed_in_its_grace_wait_for_the_next_line(
    tmp_path: Path,
) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(60)
        lab.backend.streams.clear()
        lab.backend.refuse_logs = 500
        lab.supervisor.teller.say("opens")
        await lab.pass_(2)
        lab.supervisor.teller.say("waits")
        lab.backend.refuse_logs = 0
        await lab.pass_(40)
        assert len(lab.backend.streams) == 1, "nothing was opened for them"
        lab.supervisor.teller.say("opens again")
        await lab.pass_(40)

    lab = told(tmp_path, story)

    messages = [line["message"] for line in lab.backend.streams[1].lines]
    assert messages == ["opens", "waits", "opens again"]


def test_an_answer_is_an_error_and_the_pauses_grow_to_5_minutes(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        lab.backend.refuse_logs = 401
        for _ in range(2000):
            lab.supervisor.teller.say("anybody?")
            await lab.pass_(1)

    lab = told(tmp_path, story)

    opened = [stream.at_s for stream in lab.backend.streams]
    pauses = [round(b - a) for a, b in itertools.pairwise(opened)]
    assert pauses[:8] == [10, 20, 40, 80, 160, 300, 300, 300]


def test_lines_that_find_the_buffer_full_are_dropped_and_told_of(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(60)
        lab.backend.streams.clear()
        lab.supervisor.teller.say("opens")
        await lab.pass_(1)
        for number in range(400):
            lab.supervisor.teller.say(f"{number:03} " + "x" * 1000)
        await lab.pass_(30)

    lab = told(tmp_path, story)

    lines = lab.backend.lines
    suppressed = [line for line in lines if "Suppressed" in line["message"]]
    kept = [line for line in lines if "xxx" in line["message"]]
    assert len(suppressed) == 1
    assert suppressed[0]["isStdErr"] is True
    dropped = int(
        re.findall(r"Suppressed (\d+) message\(s\) due to high load", suppressed[0]["message"])[0]
    )
    assert 0 < len(kept) < 400
    assert MAX_BUFFER * 0.9 < sum(len(str(line)) for line in kept) < MAX_BUFFER * 1.1
    assert len(kept) + dropped == 401, "`opens` waited for the connection, and found it full too"


def test_a_very_long_line_is_cut(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        lab.supervisor.teller.say("y" * 20_000)
        await lab.pass_(30)

    lab = told(tmp_path, story)

    longest = max((line["message"] for line in lab.backend.lines), key=len)
    assert len(longest) == MAX_MESSAGE
    assert longest.endswith("y[...]")


def test_half_a_character_is_escaped_and_harms_nothing(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        lab.supervisor.teller.say("half \ud83d, whole \N{SNOWMAN}")
        await lab.pass_(30)

    lab = told(tmp_path, story)

    assert "half \ud83d, whole \N{SNOWMAN}" in [line["message"] for line in lab.backend.lines]


def test_a_cut_connection_is_made_again(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        lab.backend.cut_logs = True
        await lab.pass_(20)
        lab.backend.cut_logs = False
        lab.supervisor.teller.say("again")
        await lab.pass_(60)

    lab = told(tmp_path, story)

    assert [line["message"] for line in lab.backend.lines] == ["again"]
    assert len(lab.backend.streams) == 2


@pytest.mark.parametrize(
    "config", [{"RESIN_SUPERVISOR_LOG_CONTROL": "false"}, {"RESIN_SUPERVISOR_LOCAL_MODE": "1"}]
)
def test_with_logs_switched_off_or_in_local_mode_nothing_is_told(
    tmp_path: Path, config: dict[str, str]
) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        uuid = lab.supervisor.kept.identity.uuid
        body = {uuid: {"name": "n", "config": config, "apps": {}}}
        lab.backend._targets.append({"headers": {"ETag": '"off"'}, "body": body})
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(60)
        lab.backend.streams.clear()
        lab.supervisor.teller.say("nobody hears")
        await lab.pass_(60)

    lab = told(tmp_path, story)

    assert lab.backend.streams == []


def test_a_restart_of_the_supervisor_tells_that_it_starts(tmp_path: Path) -> None:
    asked: list[int] = []

    async def run() -> RecordedLab:
        rows = recorded_rows("updates", 1, 8)
        async with a_recorded_lab(tmp_path, rows, name="lab-initial", registered=True) as lab:
            await lab.pass_(60)
            lab.backend.streams.clear()
            asked.append(len(lab.backend.requests))
            lab.backend.restarted()
            lab.supervisor.restart()
            await lab.pass_(30)
            return lab

    lab = run_virtual(run)

    assert [line["message"] for line in lab.backend.lines] == ["Supervisor starting"]
    assert lab.supervisor.kept.containers[0].life is Life.RUNNING
    assert lab.supervisor.kept.commits == {1001: COMMITS[1]}
    reported = [next(iter(body.values())) for *_, body in lab.backend.requests[asked[0] :] if body]
    assert all(set(told) <= set(METRICS) for told in reported), "its last report is remembered"
