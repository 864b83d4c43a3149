"""A control plane per story, under virtual time; of a module marked `both_engines`, once on each engine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudly.store.connection import connect
from cloudly.store.migrate import bring_up_to_date
from cloudly.store.pg import usual
from cloudly.store.store import FILE
from simulators.world import PatientLoop
from tests.cloudly.given import Plane
from tests.postgresql import Server


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": PatientLoop}


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("both_engines")
    if marked and "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Which engine the story's control plane has."""
    return getattr(request, "param", "sqlite")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server of our own, with an empty, migrated database to copy from."""
    with Server.running() as server:
        yield server


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Of an empty, migrated database on PostgreSQL; None: SQLite."""
    if engine == "sqlite":
        yield None
        return
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDLY_DATABASE_URL", url)  # for commands
        patch.setattr(usual, "FEWEST", 1)  # one alone goes the way of many, too
        yield url
    PatientLoop.neighbours.clear()


@pytest.fixture
async def plane(
    directory: Path,
    database_url: str | None,
    anyio_backend: object,  # noqa: ARG001 - the loop that the plane lives in
) -> AsyncIterator[Plane]:
    plane = Plane.begin(directory, database_url=database_url)
    yield plane
    plane.end()
