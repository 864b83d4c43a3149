"""The bounds of the lines that go along with an attempt, and the reading of lines that never end."""

from __future__ import annotations

import logging
import random  # noqa: TID251 - seeded pieces
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from baserunner.attempt_log import (
    FAILURES,
    MAX_LINE,
    MAX_LINES,
    MAX_NOTE_BYTES,
    MAX_SOURCE_BYTES,
    AttemptLog,
    Source,
    Told,
    fit,
    note,
)
from baserunner.drive import Happened
from baserunner.logs import RedactingFormatter
from baserunner.machines import MACHINES
from baserunner.neighbours import bounded
from baserunner.neighbours.bounded import TAIL_BYTES, _LastLines, read_tail
from baserunner.neighbours.host import RealHost
from baserunner.problems import Malformed, Unreachable
from baserunner.recent import KEPT_LINES, RecentLines
from baserunner.words import sentence
from interfaces.world import RealWorld, now_ms
from journal.facts import Lane, Stamp, canonical
from journal.journal import Journal
from journal.problems import NoSpace
from journal.recall import Stream, recall
from simulators.weather import FullDisk

REDACT = RedactingFormatter(["ours-0123456789"]).redact


def data_of(told: Told) -> dict[str, object]:
    return note(told, within=MAX_NOTE_BYTES, redact=REDACT)


# -- one note --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["x", "x" * 500, "x" * 100_000, "ü€😀" * 500, '"\\' * 300, "\t" * 400]
)
def test_a_note_keeps_its_bounds_whatever_the_lines_are(line: str) -> None:
    data = data_of(Told(Source.HOST, [f"{n} {line}" for n in range(1000)], omitted=7))

    lines = data["lines"]
    assert isinstance(lines, list)
    assert 1 <= len(lines) <= MAX_LINES
    assert lines[-1].startswith("999")
    assert all(len(line) <= MAX_LINE for line in lines)
    assert len(canonical(data)) <= MAX_NOTE_BYTES
    assert data["omitted"] == 1007 - len(lines)


def test_a_reason_is_bounded_and_without_secrets_too() -> None:
    data = data_of(
        Told(Source.HOST, why="it said ours-0123456789 and apikey=abcdef " + "x " * 9000)
    )

    assert data["lines"] == []
    assert len(str(data["why"])) == 300
    assert "ours" not in str(data["why"])
    assert "abcdef" not in str(data["why"])


def test_every_failure_of_a_machine_with_effects_takes_its_lines_along() -> None:
    kinds = {
        arrow.kind
        for name in ("app-update", "reboot")
        for arrow in MACHINES[name].machine.chart.arrows
        if arrow.kind.endswith(("-failed", "-unclear"))
    }

    assert kinds == FAILURES


# -- one line --------------------------------------------------------------------------------------


def test_a_line_is_one_line_of_printable_text() -> None:
    assert (
        fit("\x1b[1;31mred\x1b[0m\r\nnext\x07\u2028end  ", REDACT) == "red\\r\\nnext\\x07\\u2028end"
    )


def test_a_secret_at_the_edge_of_what_is_kept_is_replaced_as_a_whole() -> None:
    for before in range(MAX_LINE - 20, MAX_LINE + 1):
        assert "ours" not in fit("x" * before + " ours-0123456789", REDACT)
        assert "c4nary" not in fit("x" * before + " password=c4naryc4nary", REDACT)


def test_of_an_endless_line_nothing_is_kept_that_may_be_half_a_secret() -> None:
    shrinks = "token=" + "y" * 1970
    assert "ours" not in fit(f"{shrinks} and then ours-0123456789{'x' * 100_000}", REDACT)


@pytest.mark.parametrize(
    "line", ["-eyJ" * 50_000, "://" * 50_000, "token=" * 30_000, "eyJa." * 9000]
)
def test_a_line_that_patterns_are_slow_on_is_read_in_no_time(line: str) -> None:
    """It would be seconds to hours, were all of it looked at; the suite's own limit is the only clock here."""
    assert len(fit(line, REDACT)) <= MAX_LINE


@pytest.mark.parametrize(
    "harmless",
    [
        "pulling registry.example/app@sha256:" + "ab" * 32,
        "container 4ff9c9aca8be died",
        "[event] Event: Service start {'serviceName': 'main'}",
        "http://127.0.0.1:48484/v1/update",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert fit(harmless, REDACT) == harmless


# -- lines that never end --------------------------------------------------------------------------


def test_the_last_lines_are_those_of_the_whole_however_it_comes_in_pieces() -> None:
    chance = random.Random(3)  # noqa: S311 - a simulation's
    for _ in range(30):
        whole = b"\n".join(
            b"%d " % n + b"x" * chance.choice((0, 9, 300, 70_000)) for n in range(80)
        )
        lines, at = _LastLines(), 0
        while at < len(whole):
            size = chance.choice((1, 100, 5000, 200_000))
            lines.add(whole[at : at + size])
            at += size
        kept = lines.whole("it", cut=False)
        every = whole.decode().split("\n")
        assert sum(map(len, kept)) <= 2 * TAIL_BYTES
        assert kept == tuple(every[len(every) - len(kept) :])
        assert lines.dropped == len(every) - len(kept)


class Pieces(httpx.AsyncByteStream, httpx.AsyncBaseTransport):
    """A server that answers with these pieces, and then as told: ends, breaks, or says nothing more."""

    def __init__(self, *pieces: bytes, then: str = "ends", status: int = 200) -> None:
        self._pieces, self._then, self._status = pieces, then, status
        self.closed = False

    async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(self._status, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then == "breaks":
            raise httpx.ReadError("reset")
        if self._then == "is silent":
            await RealWorld().sleep(60)

    async def aclose(self) -> None:
        self.closed = True


def tail_of(server: Pieces) -> bounded.Tail:
    async def ask() -> bounded.Tail:
        client = httpx.AsyncClient(transport=server)
        return await read_tail(
            client, client.build_request("POST", "http://it/"), who="it", within_s=0.05
        )

    return anyio.run(ask)


@pytest.mark.parametrize("then", ["breaks", "is silent"])
def test_of_an_answer_that_is_cut_whole_lines_are_given_and_why(then: str) -> None:
    server = Pieces(b"one\ntwo\napikey=hal", then=then)

    tail = tail_of(server)

    assert tail.lines == ("one", "two", "")
    assert tail.cut
    assert server.closed


def test_a_server_that_says_nothing_is_unreachable_only_if_it_did_not_even_begin() -> None:
    assert tail_of(Pieces(then="is silent")).cut == "it went on for more than 0.05 s"

    class Silent(Pieces):
        async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
            await RealWorld().sleep(60)
            raise AssertionError

    with pytest.raises(Unreachable, match=r"no answer within 0\.05 s"):
        tail_of(Silent())


def test_no_text_is_a_problem_and_too_much_is_cut() -> None:
    with pytest.raises(Malformed, match="no text"):
        tail_of(Pieces(b"\x7fELF\0\0\0"))
    assert tail_of(Pieces(*[b"x\n" * 5000] * 200)).cut == "it went on for more than 1048576 bytes"


# -- the attempt -----------------------------------------------------------------------------------


def no_space() -> NoSpace:
    """As SQLite's own is told, when nothing was written."""
    return NoSpace("write 'lines'", "the disk is full", "free some space")


class Setting:
    """A real journal with an update in it, and a log that listens."""

    def __init__(self, directory: Path) -> None:
        world, self.disk = RealWorld(), FullDisk(error=no_space)
        self.journal = Journal.open(
            directory,
            stamp=lambda: Stamp(now_ms(world), world.boot_id(), round(world.monotonic() * 1000)),
            new_epoch=lambda: "e1",
            points=self.disk.point,
        )
        formatter = RedactingFormatter()
        self.recent = RecentLines(world, formatter)
        self.log = AttemptLog(
            journal=self.journal,
            world=world,
            supervisor=None,
            host=RealHost(directory),
            recent=self.recent,
            redact=formatter.redact,
        )
        self.stream: Stream[object] = recall(self.journal, "reboot/1", MACHINES["reboot"].machine)
        self.stream.record("reboot-requested", {"by": "me"})

    def fail(self) -> None:
        anyio.run(self.log.before, self.stream, Happened("reboot-failed", {"reason": "x"}))

    def lines(self) -> list[dict[str, object]]:
        return [fact.values for fact in self.journal.facts(lane=Lane.LOG) if fact.kind == "lines"]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_our_own_lines_are_those_of_this_attempt_at_info(setting: Setting) -> None:
    log = logging.getLogger("baserunner.drive")
    with setting.recent.listening():
        for text in ("reboot/1 begins", "app-update/3 staged", "the lock is gone"):
            log.info(text)
        log.debug("reboot/1 in detail")
        setting.fail()
    log.warning("reboot/1 too late")

    own = setting.lines()[0]
    assert own["source"] == "agent"
    lines = own["lines"]
    assert isinstance(lines, list)
    assert [line.split(" ", 1)[1].split("drive ")[1] for line in lines] == [
        "reboot/1 begins",
        "the lock is gone",
    ]
    assert [note["why"] for note in setting.lines()[1:]] == ["there is no Supervisor to ask"] * 2


def test_the_log_in_memory_is_bounded(setting: Setting) -> None:
    with setting.recent.listening():
        for n in range(1000):
            logging.getLogger("baserunner").info("line %d %s", n, "x" * 5000)

    held = setting.recent.since(0.0)
    assert len(held) == KEPT_LINES
    assert max(len(line.text) for line in held) <= 1000


def test_an_attempt_that_gathers_again_and_again_has_no_more_than_its_measure(
    setting: Setting,
) -> None:
    with setting.recent.listening():
        for n in range(200):
            logging.getLogger("baserunner").info("%d %s", n, "x" * 400)
        for _ in range(30):
            setting.fail()

    notes = [fact for fact in setting.journal.facts(lane=Lane.LOG) if fact.kind == "lines"]
    for source in Source:
        held = sum(len(fact.data) for fact in notes if fact.values["source"] == source)
        assert held <= MAX_SOURCE_BYTES
    assert {"again" in fact.values for fact in notes[:3]} == {False}
    assert {fact.values["again"] for fact in notes[3:]} == {True}


def test_what_is_durable_after_the_outcome_covers_the_lines(setting: Setting) -> None:
    setting.fail()
    assert setting.journal.durable_head(Lane.LOG).seq == 0

    setting.stream.record("reboot-failed", {"reason": "x"})

    assert setting.journal.durable_head(Lane.LOG).seq == 3


def test_a_disk_that_fills_up_takes_the_lines_and_leaves_the_outcome(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.disk.fill()
    setting.fail()
    setting.disk.free()

    assert setting.disk.fired == 1
    assert setting.lines() == []
    assert "goes without lines" in caplog.text
    setting.stream.record("reboot-failed", {"reason": "x"})
    assert setting.stream.ended


# -- in words --------------------------------------------------------------------------------------


def test_lines_are_told_in_one_sentence() -> None:
    values = {"source": "host", "lines": ["a", "b"], "omitted": 3}
    assert sentence("lines", values) == (
        "the last 2 lines of the host's log, 3 older ones left out; the last one: b"
    )
    one = {"source": "agent", "lines": ["a"], "omitted": 0}
    assert sentence("lines", one) == "one line of the agent's log: a"
    none = {"source": "supervisor", "lines": [], "omitted": 0, "why": "it was silent"}
    assert sentence("lines", none) == "no lines of the supervisor's log (it was silent)"
