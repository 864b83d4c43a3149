"""The code that a camera reads: where Cloudly is and a join token; and labels that are none."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest
import segno
from pydantic import SecretStr

from cloudly import labels
from cloudly.labels import BadLabel
from interfaces.join_code import BadJoinCode, JoinCode, read_join_code
from tests.cloudly.test_command_line import Command

ADDRESS = "https://cloudly.example:8443"


@pytest.fixture
def run(directory: Path) -> Command:
    return Command(directory)


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
