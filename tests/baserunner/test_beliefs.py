"""Whatever a machine of the agent may believe survives being kept as text when its facts are trimmed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baserunner.machines import MACHINES

st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("name", MACHINES)
def test_any_belief_of_a_machine_comes_back_from_text_as_it_was(name: str) -> None:
    machine = MACHINES[name].machine

    @settings(max_examples=60, derandomize=True, database=None, deadline=None)
    @given(st.from_type(type(machine.start)))
    def comes_back(believed: Any) -> None:
        assert machine.thaw(machine.freeze(believed)) == believed

    comes_back()
    assert machine.thaw(machine.freeze(machine.start)) == machine.start
