"""What crosses the border is bounded: a number that a timer or a clock cannot take is refused, not passed on."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from interfaces.desired import MAX_WAIT_S, UpdatePolicy
from interfaces.heartbeat import HeartbeatAnswer

DURATIONS = ["download_deadline_s", "apply_deadline_s", "health_soak_s", "health_deadline_s"]


@pytest.mark.parametrize("field", DURATIONS)
@pytest.mark.parametrize("seconds", [MAX_WAIT_S + 1, 1e307, float("inf"), float("nan"), -1.0])
def test_no_duration_of_a_policy_is_longer_than_thirty_days(field: str, seconds: float) -> None:
    assert getattr(UpdatePolicy.model_validate({field: MAX_WAIT_S}), field) == 30 * 86_400

    with pytest.raises(ValidationError):
        UpdatePolicy.model_validate({field: seconds})


@pytest.mark.parametrize(
    "wrong",
    [{"server_time_ms": -1}, {"server_time_ms": 2**53 + 1}, {"heartbeat_every_s": 1e307}],
)
def test_an_answer_holds_only_times_that_can_be(wrong: dict[str, float]) -> None:
    right = {"incarnation": "i", "server_time_ms": 2**53, "desired": {"generation": 0}}
    HeartbeatAnswer.model_validate(right)

    with pytest.raises(ValidationError):
        HeartbeatAnswer.model_validate(right | wrong)
