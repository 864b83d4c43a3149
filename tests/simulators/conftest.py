"""Shared by the simulators' tests: run a story about a laboratory under virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulators.world import run_virtual
from tests.simulators.lab import Lab, a_lab

Story = Callable[[Lab], Awaitable[None]]
InALab = Callable[[Story], None]


@pytest.fixture
def in_a_lab(tmp_path: Path) -> InALab:
    """Run a story in a managed laboratory."""

    async def tell(story: Story) -> None:
        async with a_lab(tmp_path) as lab:
            await story(lab)

    return lambda story: run_virtual(tell, story)
