"""A control plane per story, under virtual time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudly.store.connection import connect
from cloudly.store.migrate import bring_up_to_date
from cloudly.store.store import FILE
from simulators.world import VirtualLoop
from tests.cloudly.given import Plane


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated once for all stories."""
    file = tmp_path_factory.mktemp("migrated") / FILE
    connection = connect(file)
    bring_up_to_date(file, connection)
    connection.close()
    return file


@pytest.fixture
def directory(tmp_path: Path, migrated: Path) -> Path:
    """A data directory with that database."""
    directory = tmp_path / "cloudly"
    directory.mkdir()
    shutil.copy(migrated, directory / FILE)
    return directory


@pytest.fixture
def plane(directory: Path) -> Iterator[Plane]:
    plane = Plane.begin(directory)
    yield plane
    plane.end()
