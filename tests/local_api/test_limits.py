"""How much a peer may ask, in pure numbers."""

from __future__ import annotations

from baserunner.local_api.limits import (
    ALL_BURST,
    PEER_BURST,
    PEER_RATE,
    STRANGER_BURST,
    Bucket,
    Limits,
)


def asked(limits: Limits, peer: int | None, times: int, now_s: float = 0.0) -> int:
    """How many of so many were let through."""
    return sum(limits.may_ask(peer, now_s) for _ in range(times))


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(rate=2, burst=3)

    at_once = sum(bucket.take(10.0) for _ in range(9))
    later = sum(bucket.take(11.0) for _ in range(9))
    much_later = sum(bucket.take(1000.0) for _ in range(9))

    assert (at_once, later, much_later) == (3, 2, 3)


def test_a_clock_that_went_back_gives_nothing_away_and_takes_nothing() -> None:
    bucket = Bucket(rate=1, burst=2)
    assert bucket.take(10.0)

    assert bucket.take(5.0)
    assert not bucket.take(5.0)
    assert bucket.take(6.0)


def test_one_peer_cannot_use_up_what_another_one_has() -> None:
    limits = Limits()

    greedy = asked(limits, 1001, 1000)
    modest = asked(limits, 0, 10)

    assert greedy == PEER_BURST
    assert modest == 10


def test_all_together_are_bounded_too() -> None:
    limits = Limits()

    let_in = sum(asked(limits, peer, 1000) for peer in range(10))

    assert let_in == ALL_BURST


def test_a_peer_has_its_rate_back_after_a_second() -> None:
    limits = Limits()
    asked(limits, None, 1000)

    assert asked(limits, None, 1000, now_s=1.0) == PEER_RATE


def test_strangers_take_nothing_from_neighbours() -> None:
    limits = Limits()

    told = sum(limits.may_be_told(0.0) for _ in range(1000))

    assert told == STRANGER_BURST
    assert asked(limits, 0, 10) == 10
