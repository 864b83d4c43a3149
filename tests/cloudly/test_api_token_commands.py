"""`cloudly api-token`: what an operator types, and what the API makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloudly.api_given import Operator
from tests.cloudly.given import Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


class Command:
    def __init__(self, directory: Path, database_url: str | None) -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "CLOUDLY_DATA_DIR": str(directory),
            "COLUMNS": "200",
        }
        if database_url is not None:
            self._env["CLOUDLY_DATABASE_URL"] = database_url

    def __call__(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", "api-token", *words],
            env=self._env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def run(directory: Path, database_url: str | None) -> Command:
    return Command(directory, database_url)


async def test_a_token_is_printed_once_admits_until_it_is_revoked_and_is_listed_without_itself(
    run: Command, plane: Plane
) -> None:
    token = run("create", "ci", "--role", "operator").stdout.strip()
    who = Operator(plane, token)
    before = await who("GET", "/self")
    listed = run("list").stdout + run("list", "--json").stdout
    run("revoke", "ci")
    after = await who("GET", "/self")

    assert before.json()["role"] == "operator"
    assert before.json()["actor"] == "api/ci"
    assert token not in listed
    assert code_of(after) == (401, "api-token-revoked")
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["state"], row["used_at_ms"] % 86_400_000) == ("revoked", 0)


def test_what_makes_no_token_is_told_and_makes_none(run: Command) -> None:
    run("create", "ci", "--role", "viewer", "--expires", "never")

    no_role = run("create", "other", expect=2)
    odd_role = run("create", "other", "--role", "root", expect=2)
    odd_time = run("create", "other", "--role", "viewer", "--expires", "soon", expect=2)
    odd_name = run("create", "a b", "--role", "viewer", expect=1)
    twice = run("create", "ci", "--role", "admin", expect=1)
    nobody = run("revoke", "other", expect=1)

    assert "--role" in no_role.stderr
    assert "viewer, operator, approver, admin" in odd_role.stderr
    assert "90d" in odd_time.stderr or "7d" in odd_time.stderr
    assert "no name for an API token" in odd_name.stderr
    assert "there is an API token 'ci' already" in twice.stderr
    assert "no API token 'other'" in nobody.stderr
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["expires_at_ms"] is None
