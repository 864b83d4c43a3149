"""Join tokens: the labels that their nodes come with, who used which and when, and the code that a camera reads."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cloudly import labels
from cloudly.store import join_tokens, node_labels
from interfaces.world import now_ms
from tests.cloudly.given import UUID, Plane, bearer
from tests.cloudly.test_command_line import Command

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

ADDRESS = "https://cloudly.example:8443"
KEY = "supervisor0key0supervisor0key000"


@pytest.fixture
def run(directory: Path, database_url: str | None) -> Command:
    command = Command(directory)
    if database_url is not None:
        command._env["CLOUDLY_DATABASE_URL"] = database_url
    return command


def labelled(plane: Plane, *pairs: str, uses: int = 1) -> str:
    token = plane.join_token(uses=uses)
    given = labels.dump(labels.changed({}, pairs))
    plane.store.write_now(
        lambda db: (
            db.execute(
                "UPDATE join_token SET labels=? WHERE id=(SELECT max(id) FROM join_token)", (given,)
            ).rowcount
        )
    )
    return token


async def register(plane: Plane, token: str, uuid: str = UUID) -> None:
    answer = await plane.client.post(
        "/device/register", json={"uuid": uuid, "api_key": KEY}, headers=bearer(token)
    )
    assert answer.status_code in {200, 201}, answer.text


async def test_a_node_comes_with_the_labels_of_its_join_token(plane: Plane) -> None:
    token = labelled(plane, "site=lab", "note=two words, and ümlauts")

    await plane.device().ask(token)

    assert labels.load(plane.node()["labels"]) == {"site": "lab", "note": "two words, and ümlauts"}


async def test_so_does_one_whose_supervisor_comes_first(plane: Plane) -> None:
    token = labelled(plane, "site=lab")

    await register(plane, token)
    await plane.device().ask(token)

    assert labels.load(plane.node()["labels"]) == {"site": "lab"}


async def test_a_node_that_is_known_keeps_its_labels_whatever_token_it_comes_back_with(
    plane: Plane,
) -> None:
    await plane.device().ask(labelled(plane, "site=lab"))
    node = plane.node()["id"]
    plane.store.write_now(lambda db: node_labels.change(db, node, ["site=home"]))

    reflashed = await plane.device().ask(labelled(plane, "site=office", "new=1"))

    assert reflashed.status_code == 201
    assert labels.load(plane.node()["labels"]) == {"site": "home"}


async def test_each_use_of_a_token_names_the_node_its_half_and_the_time(plane: Plane) -> None:
    token, begun = plane.join_token(uses=3), now_ms(plane.world)
    await register(plane, token)
    plane.world.jump(timedelta(minutes=1))
    await plane.device().ask(token)
    plane.world.jump(timedelta(minutes=1))
    await plane.device().ask(token)  # the same ask again: no other use
    await plane.device("another", hostname="kiosk-2").ask(token)

    uses = plane.store.read_now(lambda db: [dict(row) for row in join_tokens.uses(db, 1)])

    assert [
        (use["node_id"], use["supervisor_at_ms"], use["agent_at_ms"]) for use in uses
    ] == [(UUID, begun, begun + 60_000), ("another", None, begun + 120_000)]  # fmt: skip
    assert plane.rows("join_token")[0]["uses_left"] == 1


async def test_a_use_from_before_these_times_were_kept_has_the_time_of_its_first_half(
    plane: Plane,
) -> None:
    token = plane.join_token()
    await plane.device().ask(token)
    plane.store.write_now(
        lambda db: db.execute("UPDATE join_use SET agent_at_ms=NULL, at_ms=17").rowcount
    )

    (use,) = plane.store.read_now(lambda db: [dict(row) for row in join_tokens.uses(db, 1)])

    assert (use["agent_at_ms"], use["supervisor_at_ms"]) == (17, None)


def test_a_token_that_was_never_used_says_so(run: Command) -> None:
    run("token", "create", "--label", "site=lab", "--label", "a=1")

    shown, told = run("token", "show", "1").stdout, run.json("token", "show", "1")

    assert "Nobody has used it yet." in shown
    assert "a=1, site=lab" in shown
    assert told["used_by"] == []
    assert told["labels"] == {"a": "1", "site": "lab"}
    assert run.json("token", "list")[0]["labels"] == told["labels"]
    assert "no join token 2" in run("token", "show", "2", expect=1).stderr


async def test_who_used_a_token_is_shown(run: Command, plane: Plane) -> None:
    await plane.device(hostname="kiosk\x1b[31m").ask(plane.join_token())

    shown, told = run("token", "show", "1").stdout, run.json("token", "show", "1")

    assert UUID in shown
    assert "\x1b" not in shown
    assert told["used_by"][0]["node_id"] == UUID
    assert told["used_by"][0]["agent_at_ms"] == now_ms(plane.world)


async def test_a_node_is_labelled_and_shown_with_its_labels(run: Command, plane: Plane) -> None:
    await plane.device().ask(labelled(plane, "site=lab", "old=1"))

    done = run.json("node", "label", UUID[:8], "rack=7", "old-")
    refused = run("node", "label", UUID[:8], "rack=8", "Bad=1", expect=1)

    assert done == {"node": UUID, "labels": {"rack": "7", "site": "lab"}}
    assert "'Bad'" in refused.stderr
    assert run.json("node", "show", UUID)["labels"] == done["labels"]
    assert run.json("node", "list")[0]["labels"] == done["labels"]
    assert "rack=7, site=lab" in run("node", "list").stdout
    assert "rack=7, site=lab" in run("node", "show", UUID).stdout
