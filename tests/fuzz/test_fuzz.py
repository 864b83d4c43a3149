"""The real agent and the real Cloudly, from seeds: nothing is lost in silence, and every queue drains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudly.store import epochs as cloudly_epochs
from cloudly.store import journals, voices
from cloudly.voices import Standing
from journal import carrying, retention
from journal.facts import Lane
from tests.fuzz import trace
from tests.fuzz.__main__ import summary
from tests.fuzz.trace import ACTS, Trace, run_trace

SEED = 20_000_000
"""The same traces for the same commit; new ground is for `make fuzz`, whose seed is the time of day."""
SHARE, SHARES = 30, 8
"""Half a second of one core each, as many as a minute of two cores once gave; in shares, so that cores divide them."""
FOUND_ONCE = (
    1066,
    2040,
    2081,
    2111,
    2138,
    3030,
    3142,
    4168,
    100_184,
    100_466,
    102_418,
    102_755,
    502_322,
    20_000_438,
    20_000_562,
    431_657_771,
    760_485,
)
"""Seeds of traces that found something, with what there was to befall them then."""
TIGHT_ONCE = (6002, 6008)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEED, SEED + SHARE * SHARES, SHARE))
def test_whatever_befalls_nothing_is_lost_in_silence_and_every_queue_drains(first: int) -> None:
    done = []
    for seed in range(first, first + SHARE):
        print(f"seed {seed}")  # noqa: T201 - whoever reads a failure needs it
        done.append(run_trace(seed))

    print(summary(done))  # noqa: T201
    befell = {what for one in done for what in one.befell}
    assert {one.seed: faults_of(one) for one in done if faults_of(one)} == {}
    assert {"power-cut", "bad-weather", "orders"} <= befell


@pytest.mark.parametrize("seed", FOUND_ONCE)
def test_what_was_found_once_is_not_found_again(seed: int) -> None:
    assert faults_of(run_trace(seed)) == []


@pytest.mark.parametrize("seed", TIGHT_ONCE)
def test_what_was_found_once_on_a_tight_disk_is_not_found_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "TIGHT_SHARE", 1.0)

    assert faults_of(run_trace(seed)) == []


def faults_of(one: Trace) -> list[str]:
    return one.verdict.faults + ([] if one.verdict.drained else ["not drained"])


# -- planted defects: each is found ----------------------------------------------------------------


def forget_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped for space is not told, and Cloudly does not notice the hole."""
    monkeypatch.setattr(retention, "bury", lambda *_: None)
    monkeypatch.setattr(cloudly_epochs, "record", lambda *_, **__: None)


def ack_without_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloudly says that it has what it did not store."""
    monkeypatch.setattr(journals, "_append", lambda *_: None)


def fence_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "standing", lambda *_: Standing.PRESENT)


def carry_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new epoch begins with nothing, and says that nothing was lost."""
    monkeypatch.setattr(carrying, "_lost", lambda *_: [])
    monkeypatch.setattr(carrying, "_read", lambda *_: ([], {lane: [] for lane in Lane}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "tight", "only"),
    [
        (forget_tombstones, 1.0, ()),
        (ack_without_keeping, 0.0, ("orders",)),
        (fence_nobody, 0.0, ("clone", "orders")),
        (carry_nothing, 0.0, ("damage", "orders", "cut-the-line")),
    ],
)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch,
    defect: Callable[[pytest.MonkeyPatch], None],
    tight: float,
    only: tuple[str, ...],
) -> None:
    monkeypatch.setattr(trace, "TIGHT_SHARE", tight)
    if only:
        monkeypatch.setattr(trace, "ACTS", {act: ACTS[act] for act in only})
    defect(monkeypatch)

    found = next((seed for seed in range(100, 140) if faults_of(run_trace(seed))), None)

    assert found is not None
