"""The folders are the architecture: each room is named in the contracts, and each contract catches what it forbids."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

NOT_SHIPPED = {"tests", "benchmarks", "tools", "docker", "docs"}
"""Python outside the rooms: may import any room, is in no wheel, and nothing may import it."""

# One import per contract that must turn it red: contract id -> (module, its text).
PLANTED = {
    "rooms": ("journal/planted.py", "import interfaces.wire\n"),
    "device-and-control-plane": ("baserunner/planted.py", "import cloudly.planted\n"),
    "simulators": ("simulators/planted.py", "import journal.facts\n"),
    "onebox": ("onebox/planted.py", "import journal.facts\n"),
    "transitions": ("cloudly/planted.py", "import transitions\n"),
    "machines": ("baserunner/planting/machine.py", "import time\n"),
    "rollouts": ("cloudly/rollouts/planted.py", "import sqlite3\n"),
    "journal-starts-fast": ("journal/planted_too.py", "import pydantic\n"),
    "device-image": ("interfaces/planted.py", "import sqlalchemy\n"),
}


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    return parser


def rooms_in_contracts() -> set[str]:
    return set(contracts()["importlinter"]["root_packages"].split())


def folders_with_python() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return {path.split("/")[0] for path in listed if "/" in path and (ROOT / path).exists()}


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=tree,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_folder_with_python_is_a_room_in_the_contracts_or_said_not_to_be_one() -> None:
    folders = folders_with_python() - NOT_SHIPPED

    unnamed = folders - rooms_in_contracts()

    assert not unnamed, f"name them in .importlinter, with their arrows: {sorted(unnamed)}"


def test_every_room_in_the_contracts_exists_and_is_in_the_wheel() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    shipped = set(pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])

    assert rooms_in_contracts() == shipped
    assert {room for room in shipped if (ROOT / room / "__init__.py").is_file()} == shipped


def test_the_contracts_hold() -> None:
    outcome = lint_imports(ROOT)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.fixture(scope="module")
def broken_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rooms as they are, with one forbidden import per contract."""
    tree = tmp_path_factory.mktemp("planted")
    for name in (*rooms_in_contracts(), "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tree)
    for module, text in PLANTED.values():
        (tree / module).parent.mkdir(exist_ok=True)
        (tree / module).parent.joinpath("__init__.py").touch()
        (tree / module).write_text(text, encoding="utf-8")
    return tree


@pytest.fixture(scope="module")
def verdict(broken_tree: Path) -> str:
    outcome = lint_imports(broken_tree)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    return outcome.stdout


def test_every_contract_has_an_import_planted_against_it() -> None:
    sections = {
        name.rpartition(":")[2]
        for name in contracts().sections()
        if name.startswith("importlinter:contract:")
    }

    assert sections == set(PLANTED)


@pytest.mark.parametrize("contract", PLANTED)
def test_a_forbidden_import_turns_its_contract_red(contract: str, verdict: str) -> None:
    name = contracts()[f"importlinter:contract:{contract}"]["name"]

    assert f"{name} BROKEN" in verdict
