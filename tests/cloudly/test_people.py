"""Who orders and why, as it is kept: one name per person, printable lines, no credential."""

from __future__ import annotations

import pytest

from cloudly.governance.people import key, note, person, reason
from cloudly.problems import BadOrder
from cloudly.tokens import new_join_token
from simulators.world import SimWorld


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("  Anna   Berg ", "Anna Berg"),
        ("\uff21nna", "Anna"),
        ("anna\tberg", "anna berg"),
        ("zoë", "zoe\u0308"),
    ],
)
def test_one_person_is_one_name_however_it_is_written(written: str, kept: str) -> None:
    assert key(person(written)) == key(kept)


def test_different_names_are_different_persons() -> None:
    assert len({key(person(name)) for name in ("anna", "ann", "anna b", "änna")}) == 4


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "say who orders it, with --by"),
        (" \t", "say who orders it"),
        ("an\u200bna", "characters that nobody sees"),
        ("anna\x1b[31m", "characters that nobody sees"),
        ("\ud800", "characters that nobody sees"),
        ("x" * 101, "101 characters long; at most 100"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(written: str, says: str) -> None:
    with pytest.raises(BadOrder, match=says):
        person(written)


def test_a_reason_is_one_line_and_must_be_there() -> None:
    assert reason(" it eats\n  flash ", "ban it") == "it eats flash"
    assert note("") == ""
    with pytest.raises(BadOrder, match="ban it: say why, with --reason"):
        reason("\n", "ban it")
    with pytest.raises(BadOrder, match="the reason is 501 characters long"):
        reason("x" * 501, "ban it")


def test_a_credential_that_was_pasted_into_a_note_is_not_kept() -> None:
    canary = new_join_token(SimWorld(1))

    assert canary not in note(f"it was enrolled with {canary} by hand")
