"""Lines of a log stream, whatever they are: nothing raises, nothing is silently lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudly.balena.log_lines import LINE_BYTES, TEXT_CHARS, Splitter, parse
from cloudly.balena.log_pace import Bucket, Shedding
from cloudly.store.log_chunks import Chunk, Line, Mark, gap, pack, unpack


def one(line: bytes) -> Line:
    found = parse(line, 7)
    assert found is not None
    return found


def test_a_line_of_each_kind_is_what_it_says() -> None:
    out = one(
        b'{"message":"svc v1 tick 2","isStdErr":false,"timestamp":1795401699017,"serviceId":501}'
    )
    err = one(b'{"message":"svc err 2","isStdErr":true,"timestamp":1795401699017,"serviceId":501}')
    own = one(b'{"message":"Failed to","isSystem":true,"timestamp":1795401735384,"isStdErr":true}')

    assert out == Line(7, 1795401699017, 501, Mark.NONE, "svc v1 tick 2")
    assert err == Line(7, 1795401699017, 501, Mark.STDERR, "svc err 2")
    assert own == Line(7, 1795401735384, None, Mark.SYSTEM | Mark.STDERR, "Failed to")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"no json at all", "no json at all"),
        (b"[1, 2]", "[1, 2]"),
        (b'"text"', '"text"'),
        (b"null", "null"),
        (b"{", "{"),
        (b"\xff\xfe broken \xc3", "�� broken �"),
        (b'{"timestamp":1}', '{"timestamp": 1}'),
        (b'{"message":5}', '{"message": 5}'),
        (b'{"message":["a"]}', '{"message": ["a"]}'),
        (b"1" * 5000, "1" * 5000),
        (b"[" * 5000, "[" * 5000),
    ],
)
def test_what_no_supervisor_writes_is_kept_as_text_and_marked(line: bytes, text: str) -> None:
    found = one(line)

    assert (found.text, found.marks) == (text, Mark.ODD)


@pytest.mark.parametrize(
    "value", ["NaN", "1e999", "-1", "true", '"1795401699017"', "null", "253402300800000", "{}"]
)
def test_a_moment_or_a_service_that_cannot_be_is_none(value: str) -> None:
    found = one(f'{{"message":"m","timestamp":{value},"serviceId":{value}}}'.encode())

    assert (found.device_at_ms, found.text) == (None, "m")
    assert found.service in {None, 253402300800000}


def test_half_a_character_is_no_character() -> None:
    assert one(b'{"message":"a\\ud83d b"}').text == "a? b"
    assert one(b'{"message":"\\ud83d\\ude00"}').text == "\N{GRINNING FACE}"


def test_a_blank_line_is_none_and_an_empty_message_is_one() -> None:
    assert parse(b"", 7) is None
    assert parse(b" \r", 7) is None
    assert one(b'{"message":""}').text == ""
    assert one(b'{"message":"ends with a break\\r\\n"}').text == "ends with a break"


def test_the_longest_message_of_a_supervisor_is_kept_whole() -> None:
    message = "\x00" * 10_000  # six bytes of JSON each
    line = json.dumps({"message": message, "isStdErr": False, "timestamp": 1, "serviceId": 1})

    ((raw, over),) = Splitter().feed(line.encode() + b"\n")

    assert over == 0
    assert one(raw).text == message


def test_a_longer_message_is_cut_with_a_mark() -> None:
    found = one(json.dumps({"message": "m" * (TEXT_CHARS + 5)}).encode())

    assert (found.text, found.marks) == ("m" * TEXT_CHARS + "[… 5 more]", Mark.CUT)


def test_of_a_line_of_ten_megabytes_only_the_beginning_is_ever_held() -> None:
    splitter = Splitter()

    for _ in range(160):
        assert list(splitter.feed(b"x" * 65536)) == []
        assert len(splitter._rest) <= LINE_BYTES
    (long, after) = splitter.feed(b"\nafter\n")

    assert long == (b"x" * LINE_BYTES, 159 * 65536)
    assert after == (b"after", 0)
    found = parse(long[0], 7, over=long[1])
    assert found is not None
    assert found.marks == Mark.ODD | Mark.CUT
    assert found.text.endswith(f"[… {160 * 65536 - TEXT_CHARS} more]")


@given(st.binary(max_size=300), st.integers(1, 50))
def test_however_bytes_are_cut_the_lines_are_the_same(raw: bytes, size: int) -> None:
    splitter = Splitter()

    lines = [
        line for at in range(0, len(raw), size) for line, _ in splitter.feed(raw[at : at + size])
    ]
    rest = splitter.finish()

    assert b"\n".join([*lines, rest[0] if rest else b""]) == raw


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_that_can_be_kept_and_read_again(raw: bytes) -> None:
    line = parse(raw, 7)
    if line is not None:
        assert unpack(Chunk(1, 1, 7, 7, pack([line]))) == [line]


FIELDS = ("message", "isSystem", "isStdErr", "timestamp", "serviceId")
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values)))
def test_any_object_is_a_line_that_can_be_kept_and_read_again(said: dict[str, Any]) -> None:
    line = one(json.dumps(said).encode())

    assert unpack(Chunk(1, 1, 7, 7, pack([line]))) == [line]


def test_rows_small_and_large_are_read_as_they_were_written() -> None:
    for lines in (
        [Line(1, None, None, 0, "ü")],
        [Line(n, n, 5, 2, f"text {n}") for n in range(500)],
    ):
        assert unpack(Chunk(1, len(lines), 0, 9, pack(lines))) == lines


@pytest.mark.parametrize(
    "damaged", [b"", b"x\x9c", b"[", b"[[1]]", b'[["a",1,1,1,"t",0]]', b"[1]", b"{}"]
)
def test_a_damaged_row_is_a_gap(damaged: bytes) -> None:
    assert unpack(Chunk(5, 3, 1, 9, damaged)) == [gap(9, 3, "damaged")]
    assert unpack(Chunk(5, 500, 1, 9, pack([Line(1, 1, 1, 0, "t" * 20)] * 500)[:-9])) == [
        gap(9, 500, "damaged")
    ]


def test_a_bucket_gives_its_stock_and_then_its_rate() -> None:
    bucket = Bucket(10, 50)

    assert bucket.take(50, 0) == 0
    assert bucket.take(20, 0) == 2
    assert bucket.take(0, 1) == 1
    assert bucket.take(0, 2) == 0
    assert bucket.level(1000) == 50
    assert bucket.level(0) == 50  # a clock that goes back


def test_lines_are_left_out_until_there_is_stock_for_a_second_again() -> None:
    shedding = Shedding(10)
    at_once = sum(shedding.keeps(1, 0) for _ in range(1000))
    left_out = shedding.counted()

    soon = [shedding.keeps(1, 0.9) for _ in range(5)]
    later = [shedding.keeps(1, 1.0) for _ in range(5)]

    assert (at_once, left_out) == (500, 500)
    assert (soon, later) == ([False] * 5, [True] * 5)
    assert (shedding.counted(), shedding.counted()) == (5, 0)


def test_a_long_line_costs_as_much_as_several() -> None:
    shedding = Shedding(10)

    assert sum(shedding.keeps(2560, 0) for _ in range(1000)) == 46
