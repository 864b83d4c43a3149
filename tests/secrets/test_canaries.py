"""No secret ever leaves its file: real processes at DEBUG, a story, and a search of everything they left behind."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import anyio
import httpx
import pytest

from onebox import AsyncBaseOSRuntime, detect_async
from simulators.demo.script import _set_release
from simulators.demo.stage import Stage

pytestmark = pytest.mark.slow

ALLOWED = {
    "node token": {"data/baseos/state.json"},
    "former node token": {"data/baseos/state.json"},
    "enrollment secret": {"data/baseos/state.json"},
    "join token": {"secrets/join-token"},
    "capability token": {"local-api/token"},
    "lock key": set(),
    "Supervisor key": set(),
}
"""Where a secret must be, and nowhere else. `secrets/join-token` is the simulated Supervisor's configuration, and
`supervisor/` its own memory, which is a database of keys on a real one too."""

OWN_MEMORY_OF_THE_SUPERVISOR = "supervisor/"


def forms(secret: str) -> set[bytes]:
    """A secret as it could be found again: as it is, encoded, and the beginning of it."""
    raw = secret.encode()
    bare = secret.partition("_")[2] or secret
    return {
        raw,
        bare[:16].encode(),
        raw.hex().encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        urllib.parse.quote(secret, safe="").encode(),
    }


def places_of(secret: str, texts: Mapping[str, bytes]) -> set[str]:
    return {name for name, text in texts.items() if any(form in text for form in forms(secret))}


def command(stage: Stage, words: list[str], **environment: str) -> tuple[str, bytes]:
    """What one of our commands prints, stdout and stderr, whatever its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, **stage.agent_environment, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return f"`{' '.join(words)}`", done.stdout + done.stderr


def left_behind(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Every file, what every page shows, what every command prints, and the command lines of all processes."""
    for path in sorted(stage.directory.rglob("*")):
        name = str(path.relative_to(stage.directory))
        if path.is_file() and not name.startswith(OWN_MEMORY_OF_THE_SUPERVISOR):
            yield name, path.read_bytes()
    for page in ("/", f"/nodes/{stage.uuid}", f"/nodes/{stage.uuid}/logs"):
        answer = httpx.get(stage.page + page, trust_env=False)
        assert answer.status_code == 200, page
        yield f"page {page}", answer.content + repr(answer.headers).encode()
    for words in (
        ["baserunner", "status", "--json"],
        ["baserunner", "why", "--json"],
        ["baserunner", "doctor", "--json"],
        ["baserunner", "journal", "export"],
        ["baserunner", "journal", "tail", "-n", "1000", "--json"],
        ["baserunner", "machines", "--json"],
    ):
        yield command(stage, words)
    cloudly = {"CLOUDLY_DATA_DIR": str(stage.directory / "cloudly")}
    for words in (
        ["cloudly", "node", "show", stage.uuid, "--json"],
        ["cloudly", "node", "logs", stage.uuid, "--json"],
        ["cloudly", "token", "list", "--json"],
        ["cloudly", "token", "show", "1", "--json"],
    ):
        yield command(stage, words, **cloudly)
    for name, process in stage.running.items():
        yield f"command line of {name}", Path(f"/proc/{process.pid}/cmdline").read_bytes()


async def a_story(stage: Stage) -> tuple[str, str]:
    """Enroll, update, lose the Supervisor's trust, be refused, hold a lock; returns join token and the lock's key."""
    await stage.start_cloudly()
    made = json.loads(stage.ask(["cloudly", "token", "create", "--json"]))
    join_token: str = made["token"]
    await stage.start_supervisor(join_token)
    stage.start_agent(join_token)
    await until(stage, (stage.directory / "data/baseos/state.json").exists)
    await until(stage, lambda: json.loads(ask_status(stage))["enrollment"] == "enrolled")
    _set_release(stage, "1.0.0")
    await until(stage, lambda: json.loads(ask_status(stage))["update_state"] == "succeeded")
    stage.ask(["cloudly", "node", "rotate", "--all"])
    await until(stage, lambda: token_generation(stage) == 2)
    return join_token, await a_neighbour(stage)


async def a_neighbour(stage: Stage) -> str:
    """It holds a lock, and asks with a wrong token, too; returns the lock's key."""
    place = stage.directory / "local-api"
    wrong = stage.directory / "secrets" / "wrong-token"
    wrong.write_text("bct_" + "w" * 43)
    for token_file in (wrong, place / "token"):
        environment = {
            "SERVEZONE_RUNTIME": "baseos",
            "BASEOS_AGENT_URL": f"unix://{place / 'agent.sock'}",
            "BASEOS_AGENT_TOKEN_FILE": str(token_file),
        }
        found = await detect_async(environment)
    assert isinstance(found, AsyncBaseOSRuntime)
    async with found, found.update_lock("canary", "holds it for a while") as lock:
        await stage.world.sleep(0.5)
        key = lock._holding.held
        assert key is not None
        return key.key.get_secret_value()


def token_generation(stage: Stage) -> int:
    """As Cloudly has seen it used."""
    cloudly = {"CLOUDLY_DATA_DIR": str(stage.directory / "cloudly")}
    told = command(stage, ["cloudly", "node", "show", stage.uuid, "--json"], **cloudly)[1]
    generation: int = json.loads(told)["token_generation"]
    return generation


def ask_status(stage: Stage) -> bytes:
    return command(stage, ["baserunner", "status", "--json"])[1]


async def until(stage: Stage, true: Callable[[], bool]) -> None:
    deadline = stage.world.monotonic() + 60
    while not true():
        assert stage.world.monotonic() < deadline
        stage.check_alive()
        await stage.world.sleep(0.3)


def provoke_errors(stage: Stage, join_token: str) -> Iterator[tuple[str, bytes]]:
    """Commands that go wrong with secrets in their hands."""
    settings = {"BASEOS_JOIN_TOKEN": join_token, "BASEOS_LOG_LEVEL": "DEBUG"}
    yield command(stage, ["baserunner", "run"], **settings)  # the second agent on one directory
    yield command(stage, ["baserunner", "run"], BASEOS_JOIN_TOKEN=join_token + " and more")
    code = stage.directory / "secrets" / "join-code"
    code.write_text(f"baseos-join:v1?cloudly=https://other.example&token={join_token}\n")
    yield command(stage, ["baserunner", "enroll", "--token-file", str(code)])
    code.unlink()
    yield command(
        stage, ["baserunner", "doctor"], BASEOS_CLOUDLY_URL=f"http://{join_token}@127.0.0.1:1"
    )
    yield command(stage, ["baserunner", "doctor"], BALENA_SUPERVISOR_ADDRESS="http://127.0.0.1:1")
    torn = stage.directory / "torn" / "baseos"
    torn.mkdir(parents=True)
    whole = (stage.directory / "data/baseos/state.json").read_bytes()
    (torn / "state.json").write_bytes(whole[:-20])
    yield command(stage, ["baserunner", "doctor"], BASEOS_DATA_DIR=str(torn.parent))
    (torn / "state.json").unlink()


def test_secrets_are_found_only_in_their_files(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "s", speed=10, log_level="DEBUG", local_api=True)
    try:
        join_token, lock_key = anyio.run(a_story, stage)
        texts = dict(left_behind(stage)) | dict(provoke_errors(stage, join_token))
    finally:
        stage.end()
    identity = json.loads(texts["data/baseos/state.json"])
    secrets = {
        "node token": identity["node_token"],
        "former node token": identity["former_tokens"][0]["token"],
        "enrollment secret": identity["enrollment_secret"],
        "join token": join_token,
        "capability token": texts["local-api/token"].decode(),
        "lock key": lock_key,
        "Supervisor key": stage.supervisor_key,
    }

    found = {name: places_of(secret, texts) for name, secret in secrets.items()}

    assert len(texts) > 20
    assert found == ALLOWED


def test_the_search_finds_a_planted_secret_in_any_form(tmp_path: Path) -> None:
    del tmp_path
    secret = "bjt_" + "Zk3-canary_" * 4

    for form in forms(secret):
        assert places_of(secret, {"log": b"before " + form + b" after"}) == {"log"}
    assert places_of(secret, {"log": b"bjt_[secret]"}) == set()
