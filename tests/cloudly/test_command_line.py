"""The `cloudly` command, as real processes beside and without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cloudly.given import DIGEST, UUID, Plane

pytestmark = pytest.mark.anyio


class Command:
    def __init__(self, directory: Path) -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "CLOUDLY_DATA_DIR": str(directory),
            "COLUMNS": "200",
        }

    def __call__(
        self, *words: str, expect: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env={key: value for key, value in (self._env | env).items() if value},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture
def run(directory: Path) -> Command:
    return Command(directory)


async def test_a_token_made_on_the_command_line_lets_a_device_in(
    run: Command, directory: Path
) -> None:
    token = run("token", "create", "--name", "my first device").stdout.strip()

    plane = Plane.begin(directory)
    answer = await plane.device().ask(token)
    plane.end()

    assert token.startswith("bjt_")
    assert len(token) == 47
    # the simulated world is years before or after the real one: what counts is that the token was found
    assert answer.status_code == 201 or answer.json()["code"] == "token-expired"


def test_a_token_is_shown_once(run: Command) -> None:
    made = run.json("token", "create", "--uses", "3", "--expires", "30m", "--name", "ci")

    listed = run("token", "list").stdout
    (row,) = run.json("token", "list")

    assert made["token"] not in listed + json.dumps(row)
    assert (row["name"], row["uses"], row["uses_left"], row["state"]) == ("ci", 3, 3, "usable")
    assert row["expires_at_ms"] - row["created_at_ms"] == 30 * 60 * 1000


def test_a_revoked_token_is_listed_as_such(run: Command) -> None:
    run("token", "create", "--expires", "never")
    run("token", "revoke", "1")

    assert run.json("token", "list")[0]["state"] == "revoked"
    assert "no join token 7" in run("token", "revoke", "7", expect=1).stderr


async def test_nodes_are_listed_and_shown(run: Command, directory: Path) -> None:
    plane = Plane.begin(directory)
    device = await plane.device(hostname="evil\x1b[31m[bold]name").enroll()
    await device.tell("enrollment/1", "asking", "enrolled", reason="all well")
    lock = {
        "stream": "lock/1",
        "owner": "backup",
        "reason": "\x1b[31mnightly",
        "since_ms": 1,
        "until_ms": 2,
    }
    await device.beat(reported={"locks": [lock]})
    plane.end()

    table, story = run("node", "list").stdout, run("node", "show", UUID[:6]).stdout
    (listed,), shown = run.json("node", "list"), run.json("node", "show", UUID)

    assert UUID[:12] in table
    assert "\x1b[31m" not in table + story
    assert "[bold]name" in table
    assert "all well" in story
    assert "Update lock: backup since 1970-01-01 00:00:00 UTC until 1970-01-01" in story
    assert listed["node_id"] == shown["node_id"] == UUID
    assert [one["dst"] for one in shown["transitions"]] == ["enrolled", "asking"]


async def test_a_release_set_on_the_command_line_is_what_the_node_is_told(
    run: Command, directory: Path
) -> None:
    plane = Plane.begin(directory)
    device = await plane.device().enroll()

    done = run.json(
        "release", "set", UUID[:8], "1.2.3", "--release", "c0ffee",
        "--image", f"main=registry.example/app@{DIGEST}", "--label", "main=a.b=c=d",
        "--health-soak", "3", "--max-apply-attempts", "2",
    )  # fmt: skip
    app = (await device.beat()).json()["desired"]["app"]
    plane.end()

    assert done == [{"node": UUID, "generation": 1, "deployment": app["deployment"]}]
    assert (app["version"], app["release"]) == ("1.2.3", "c0ffee")
    assert (app["policy"]["health_soak_s"], app["policy"]["max_apply_attempts"]) == (3.0, 2)
    (listed,) = run.json("release", "list")
    assert (listed["version"], listed["wanted_by"], listed["images"]) == (
        "1.2.3", 1, {"main": f"registry.example/app@{DIGEST}"},
    )  # fmt: skip
    assert (
        "has it already"
        in run(
            "release",
            "set",
            UUID,
            "1.2.3",
            "--release",
            "c0ffee",
            "--health-soak",
            "3",
            "--max-apply-attempts",
            "2",
        ).stdout
    )


def test_empty_lists_say_what_to_do(run: Command) -> None:
    assert "cloudly token create" in run("node", "list").stdout
    assert "cloudly token create" in run("token", "list").stdout
    assert "cloudly release set" in run("release", "list").stdout
    assert run.json("node", "list") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("token", "create", "--expires", "soon"), "24h"),
        (("token", "create", "--uses", "0"), "--uses"),
        (("release", "set", "1.0.0", "--release", "c1"), "NODE VERSION"),
        (("release", "set", "a", "b", "--all", "--release", "c1"), "--all VERSION"),
        (
            ("release", "set", "--all", "1", "--release", "c1", "--image", "main=app:latest"),
            "sha256",
        ),
        (("release", "set", "--all", "1", "--release", "../c1"), "--release"),
        (
            ("release", "set", "--all", "1", "--release", "c1", "--label", "main"),
            "service=key=value",
        ),
        (("release", "set", "--all", "1", "--release", "c1", "--health-soak", "nan"), "finite"),
        (("release", "set", "--all", "1", "--release", "c1", "--health-deadline", "inf"), "finite"),
        (
            ("release", "set", "--all", "1", "--release", "c1", "--health-soak", "1e307"),
            "--health-soak: Input",
        ),
        (
            ("release", "set", "--all", "1", "--release", "c1", "--download-deadline", "2592001"),
            "--download-deadline: Input",
        ),
        (("release", "set", "--all", "v" * 300, "--release", "c1"), "version"),
        (("frobnicate",), "frobnicate"),
        (("serve", "--port", "99999"), "CLOUDLY_PORT"),
        (("serve", "--host", "0.0.0.0"), "--insecure-page"),  # noqa: S104 - it is refused
    ],
)
def test_wrong_usage_says_what_is_right_and_ends_with_two(
    run: Command, words: tuple[str, ...], says: str
) -> None:
    assert says in run(*words, expect=2).stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLOUDLY_DATA_DIR", ""),
        ("CLOUDLY_PORT", "http"),
        ("CLOUDLY_HEARTBEAT_EVERY_S", "often"),
        ("CLOUDLY_HEARTBEAT_EVERY_S", "nan"),
        ("CLOUDLY_PAGE", "maybe"),
        ("CLOUDLY_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_setting_that_is_missing_or_malformed_is_named_in_one_line(
    run: Command, variable: str, value: str
) -> None:
    done = run("serve", expect=2, **{variable: value})

    assert done.stderr.count("\n") == 1
    assert variable in done.stderr
    assert f"{variable}=" in done.stderr  # an example


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("node", "show", "nobody"), "no node 'nobody'"),
        (
            ("release", "set", "nobody", "1", "--release", "c1", "--image", f"m=x@{DIGEST}"),
            "no node 'nobody'",
        ),
        (("release", "set", "--all", "1", "--release", "c1"), "--image"),
        (
            (
                "release",
                "set",
                "--all",
                "1",
                "--release",
                "c1",
                "--image",
                f"m=x.example/{'a' * 450}@{DIGEST}",
            ),
            "images.0.image: String should have at most 500",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_ends_with_one(
    run: Command, words: tuple[str, ...], says: str
) -> None:
    assert says in run(*words, expect=1).stderr
    assert run.json("release", "list") == []


def test_a_directory_that_cannot_be_written_is_one_line(run: Command, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a directory")

    done = run("node", "list", expect=1, CLOUDLY_DATA_DIR=str(blocked / "cloudly"))

    assert done.stderr.count("\n") == 1


def test_help_and_completion_import_nothing_of_the_server() -> None:
    code = (
        "import sys\n"
        "from cloudly.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'fastapi', 'sqlalchemy', 'uvicorn', 'alembic', 'pydantic', 'jinja2', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "release" in done.stdout
