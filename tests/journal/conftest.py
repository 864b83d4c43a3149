"""A place for a journal, and a journal in it that is closed when the story ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.journal import Journal
from tests.journal.given import open_at


@pytest.fixture
def place(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    return data


@pytest.fixture
def journal(place: Path) -> Iterator[Journal]:
    journal = open_at(place)
    yield journal
    journal.close()
