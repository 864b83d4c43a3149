"""What reaches the flash: no more than raw SQLite writes, from the first fact on. Counted at a block device of its own.

The goal is 1.15 x (`benchmarks/bench_flash.py` measures it); this is coarse, so that no kernel's habit turns it red.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.bench_flash import Flash, NoFlashError, flashes, per_fact
from benchmarks.yard import append_to, insert_raw, open_at, open_raw
from journal import connection

pytestmark = pytest.mark.slow

COARSE = 1.3


@pytest.fixture
def devices() -> Iterator[list[Flash]]:
    try:
        with flashes(2) as two:
            yield two
    except NoFlashError as problem:
        pytest.skip(f"{NoFlashError.__doc__} {problem}")


def test_a_fact_costs_the_flash_what_a_row_costs_from_the_first_one_on(
    devices: list[Flash],
) -> None:
    with open_at(devices[0].at) as journal:
        raw = open_raw(devices[1].at)
        seen = per_fact(devices[0], append_to(journal))
        yard = per_fact(devices[1], lambda i: insert_raw(raw, i))
        raw.close()

    assert 0 < seen[0] <= COARSE * yard[0]
    assert 1.0 <= seen[1] <= 1.2


def test_a_log_that_must_grow_costs_the_flash_a_multiple(
    devices: list[Flash], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted defect: without the WAL grown beforehand, the first facts cost more than the measure allows."""
    monkeypatch.setattr(connection, "WAL_BYTES", 0)
    with open_at(devices[0].at) as journal:
        seen = per_fact(devices[0], append_to(journal))
    monkeypatch.undo()
    raw = open_raw(devices[1].at)
    yard = per_fact(devices[1], lambda i: insert_raw(raw, i))
    raw.close()

    assert seen[1] > 1.2, "the measure does not see it"
    assert seen[0] > yard[0]
