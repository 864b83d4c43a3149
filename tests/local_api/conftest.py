"""One running agent for the tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local_api.given import Device


@pytest.fixture(scope="session")
def shared_device() -> Iterator[Device]:
    """Its allowance for requests is a real clock's: `unhurried` lets it fill up."""
    device = Device()
    try:
        device.start()
        yield device
    finally:
        device.end()


@pytest.fixture
def device() -> Iterator[Device]:
    """Not started yet."""
    made = Device()
    yield made
    made.end()
