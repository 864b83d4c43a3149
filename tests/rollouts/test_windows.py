"""Maintenance windows: by the clock on the wall, across midnight, and across both changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudly.rollouts.windows import DAYS, Window, is_open, next_change_ms, window

BERLIN = ZoneInfo("Europe/Berlin")


def wall(text: str, *, fold: int = 0, zone: ZoneInfo = BERLIN) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


def utc(text: str) -> int:
    return wall(text, zone=ZoneInfo("UTC"))


def test_no_windows_are_always_open() -> None:
    assert is_open((), 0)
    assert next_change_ms((), 0) is None


def test_a_window_is_open_from_its_start_to_before_its_end() -> None:
    one = (window("mon-fri 22:00-23:30 Europe/Berlin"),)

    assert not is_open(one, wall("2026-11-23 21:59:59"))
    assert is_open(one, wall("2026-11-23 22:00"))
    assert is_open(one, wall("2026-11-23 23:29:59"))
    assert not is_open(one, wall("2026-11-23 23:30"))
    assert not is_open(one, wall("2026-11-22 22:30"))  # a Sunday


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    one = (window("fri 22:00-04:00 Europe/Berlin"),)

    assert is_open(one, wall("2026-11-28 03:59"))  # Saturday
    assert not is_open(one, wall("2026-11-27 03:59"))  # Friday
    assert next_change_ms(one, wall("2026-11-23 12:00")) == wall("2026-11-27 22:00")
    assert next_change_ms(one, wall("2026-11-27 23:00")) == wall("2026-11-28 04:00")


def test_windows_that_touch_are_one() -> None:
    both = (window("daily 22:00-24:00 UTC"), window("daily 00:00-02:00 UTC"))

    assert next_change_ms(both, utc("2026-11-23 22:30")) == utc("2026-11-24 02:00")


def test_a_window_of_whole_days_never_changes() -> None:
    assert (
        next_change_ms((window("daily 00:00-24:00 Europe/Berlin"),), utc("2026-03-28 12:00"))
        is None
    )


def test_when_clocks_go_back_the_hour_that_comes_twice_is_in_the_window_once_as_a_whole() -> None:
    one = (window("sun 01:00-04:00 Europe/Berlin"),)
    start, end = wall("2026-10-25 01:00"), wall("2026-10-25 04:00")

    assert end - start == 4 * 3_600_000  # one hour more than the wall says
    assert all(is_open(one, at) for at in range(start, end, 600_000))
    assert next_change_ms(one, start) == end


def test_a_window_that_ends_in_the_hour_that_comes_twice_does_not_open_again() -> None:
    one = (window("sun 01:00-02:30 Europe/Berlin"),)

    assert is_open(one, wall("2026-10-25 02:29", fold=0))
    assert not is_open(one, wall("2026-10-25 02:29", fold=1))
    assert next_change_ms(one, wall("2026-10-25 02:31", fold=0)) == wall("2026-11-01 01:00")


def test_when_clocks_go_forward_a_start_that_never_comes_is_the_leap() -> None:
    one = (window("sun 02:30-05:00 Europe/Berlin"),)

    assert not is_open(one, wall("2026-03-29 01:59:59"))
    assert is_open(one, wall("2026-03-29 03:00"))
    assert next_change_ms(one, wall("2026-03-29 01:00")) == utc("2026-03-29 01:00")


def test_a_window_that_lies_in_the_leap_does_not_open_that_day() -> None:
    one = (window("sun 02:10-02:50 Europe/Berlin"),)

    assert not is_open(one, wall("2026-03-29 03:00"))
    assert next_change_ms(one, wall("2026-03-23 12:00")) == wall("2026-04-05 02:10")


def test_a_zone_that_is_a_day_ahead_has_its_own_days() -> None:
    one = (window("mon 00:00-01:00 Pacific/Kiritimati"),)  # UTC+14

    assert is_open(one, utc("2026-11-22 10:30"))
    assert not is_open(one, utc("2026-11-23 00:30"))


def test_a_zone_that_is_a_day_behind_has_its_own_days_too() -> None:
    one = (window("mon 22:00-20:00 Pacific/Pago_Pago"),)  # UTC-11, until Tuesday evening there

    assert is_open(one, utc("2026-11-25 06:59"))
    assert not is_open(one, utc("2026-11-25 07:00"))


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("daily 00:00-24:00 UTC", "daily 00:00-24:00 UTC"),
        ("fri-mon 22:00-04:00 UTC", "mon+fri+sat+sun 22:00-04:00 UTC"),
        ("TUE+mon+wed 01:00-02:00 UTC", "mon-wed 01:00-02:00 UTC"),
        ("sat+sun 01:00-02:00 UTC", "sat+sun 01:00-02:00 UTC"),
    ],
)
def test_a_window_has_one_spelling(text: str, spelling: str) -> None:
    assert str(window(text)) == spelling
    assert window(spelling) == window(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon",
        "noon 1:00-2:00 UTC",
        "mon 01:00-02:00",
        "someday 01:00-02:00 UTC",
        "mon 24:00-01:00 UTC",
        "mon 01:00-02:00 Europe/Atlantis",
        "mon 01:00-02:00 ../x",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"window|day|HH:MM|zone"):
        window(text)


clock = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
windows = st.lists(
    st.builds(
        Window,
        days=st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True).map(tuple),
        start=clock,
        end=st.just("24:00"),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    )
    | st.sampled_from([window("daily 22:00-04:00 Europe/Berlin"), window("sun 02:10-02:50 Europe/Berlin")]),
    min_size=1,
    max_size=3,
)  # fmt: skip
moment = st.integers(
    round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000),
    round(datetime(2028, 1, 1, tzinfo=UTC).timestamp() * 1000),
)


@given(windows, moment)
def test_the_next_change_is_the_first_moment_that_is_otherwise(
    some: list[Window], now_ms: int
) -> None:
    change_ms = next_change_ms(some, now_ms)

    now = is_open(some, now_ms)
    if change_ms is None:
        change_ms = now_ms + 7 * 86_400_000
        assert is_open(some, change_ms) == now
    else:
        assert change_ms > now_ms
        assert is_open(some, change_ms) != now
    between = range(now_ms, change_ms, max((change_ms - now_ms) // 50, 1))
    assert all(is_open(some, at) == now for at in between)
    assert is_open(some, change_ms - 1) == now
