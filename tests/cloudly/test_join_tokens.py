"""Join tokens: the labels that their nodes come with, who used which and when, and the code that a camera reads."""

from __future__ import annotations

import io
import stat
from datetime import timedelta
from pathlib import Path

import pytest
import segno
from pydantic import SecretStr

from cloudly import labels
from cloudly.labels import BadLabel
from cloudly.store import join_tokens, node_labels
from interfaces.join_code import BadJoinCode, JoinCode, read_join_code
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
    plane.store.write_now(lambda db: node_labels.change(db, plane.node()["id"], ["site=home"]))

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


@pytest.mark.parametrize(
    "wrong", ["site", "Site=lab", "=lab", "a b=c", "site=a\tb", "k" * 64 + "=v", "a=" + "v" * 101]
)
def test_what_is_no_label_makes_no_token(run: Command, wrong: str) -> None:
    said = run("token", "create", "--label", wrong, expect=1)

    assert "label" in said.stderr or "key=value" in said.stderr
    assert said.stdout == ""
    assert run.json("token", "list") == []


def test_labels_change_all_together_or_not_at_all() -> None:
    before = {"site": "lab", "rack": "7"}

    assert labels.changed(before, ["rack-", "site=home", "empty="]) == {"site": "home", "empty": ""}
    assert labels.changed(before, ["gone-"]) == before
    assert labels.changed({}, ["a-b=c=d"]) == {"a-b": "c=d"}
    assert before == {"site": "lab", "rack": "7"}
    full = labels.changed({}, [f"k{n}=v" for n in range(labels.MOST)])
    assert len(labels.changed(full, ["k0-", "other=v"])) == labels.MOST
    with pytest.raises(BadLabel, match="at most 32"):
        labels.changed(full, ["one-more=v"])


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


# -- the join code


def test_the_terminal_shows_the_code_that_says_where_cloudly_is_and_the_token(run: Command) -> None:
    made = run("token", "create", "--qr", CLOUDLY_PUBLIC_URL=ADDRESS, PYTHONIOENCODING="utf-8")

    token, _, drawing = made.stdout.partition("\n")

    expected = io.StringIO()
    text = f"baseos-join:v1?cloudly={ADDRESS}&token={token}"
    segno.make_qr(text).terminal(expected, compact=True)
    assert drawing == expected.getvalue()
    assert drawing.count("\n") > 15
    assert token not in made.stderr


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("PNG", b"\x89PNG")])
def test_a_code_in_a_file_is_its_owners_alone(
    run: Command, tmp_path: Path, suffix: str, begins: bytes
) -> None:
    file = tmp_path / f"code.{suffix}"

    made = run("token", "create", "--qr-file", str(file), CLOUDLY_PUBLIC_URL=ADDRESS)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(begins)
    assert made.stdout.startswith("bjt_")
    assert made.stdout.strip().encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("words", "environment", "about"),
    [
        (["--qr"], {}, "CLOUDLY_PUBLIC_URL"),
        (["--qr-file", "code.jpg"], {"CLOUDLY_PUBLIC_URL": ADDRESS}, ".svg or .png"),
        (["--qr-file", "/no/where/code.svg"], {"CLOUDLY_PUBLIC_URL": ADDRESS}, "no directory"),
    ],
)
def test_a_code_that_cannot_be_made_makes_no_token(
    run: Command, words: list[str], environment: dict[str, str], about: str
) -> None:
    said = run("token", "create", *words, expect=1, **environment)

    assert about in said.stderr
    assert "bjt_" not in said.stdout + said.stderr
    assert run.json("token", "list") == []


def test_a_code_and_json_do_not_mix(run: Command) -> None:
    assert "--qr-file" in run("token", "create", "--qr", "--json", expect=2).stderr


def test_a_terminal_that_cannot_draw_says_so_and_the_token_is_not_lost(run: Command) -> None:
    said = run(
        "token", "create", "--qr", expect=1, CLOUDLY_PUBLIC_URL=ADDRESS, PYTHONIOENCODING="ascii"
    )

    assert said.stdout.startswith("bjt_")
    assert "--qr-file" in said.stderr
    assert said.stdout.strip() not in said.stderr


@pytest.mark.parametrize("address", [ADDRESS, "http://[::1]:8080", "https://cloudly.example"])
def test_a_code_says_the_same_after_it_was_read(address: str) -> None:
    code = JoinCode(address, SecretStr("bjt_" + "x" * 43))

    again = read_join_code(code.text() + "\n")

    assert again == code
    assert "xxx" not in repr(again)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bjt_" + "s3cret" * 8,
        "baseos-join:v2?cloudly=https://a&token=bjt_" + "s3cret" * 8,
        "baseos-join:v1",
        "baseos-join:v1?token=bjt_" + "s3cret" * 8,
        "baseos-join:v1?cloudly=https://a",
        "baseos-join:v1?cloudly=ftp://a&token=bjt_" + "s3cret" * 8,
        "baseos-join:v1?cloudly=https://a&token=bjt_s3cret s3cret s3cret s3cret",
        "baseos-join:v1?cloudly=https://a&token=bjt_" + "s3cret" * 800,
        "baseos-join:v1?cloudly=https://a&cloudly=https://b&token=bjt_" + "s3cret" * 8,
    ],
)
def test_what_is_no_code_is_refused_without_its_contents(text: str) -> None:
    with pytest.raises(BadJoinCode) as caught:
        read_join_code(text)

    assert "s3cret" not in str(caught.value)
