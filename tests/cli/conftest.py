"""A device per story."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.given import Device


@pytest.fixture
def device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Device:
    """Its data directory is there, and empty."""
    data = tmp_path / "data"
    data.mkdir()
    return Device(data, monkeypatch, capsys)


@pytest.fixture
def lived(device: Device) -> Device:
    """One with a story behind it, and no agent running."""
    device.live()
    return device
