"""`run`, `enroll`, `update check|force`, `reboot`: what changes something, and what is said when it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from baserunner import orders
from baserunner.orders import OrderAnswer, OrderKind
from tests.cli.given import Device

CLOUDLY = "http://127.0.0.1:9"
TOKEN = "bjt_" + "cliCanary" * 5
ORDERS = {
    OrderKind.CHECK: ("update", "check"),
    OrderKind.FORCE: ("update", "force", "--yes"),
    OrderKind.REBOOT: ("reboot", "--yes"),
    OrderKind.BREAK_LOCK: ("locks", "break", "lock/1", "--reason", "it is urgent", "--yes"),
}


@contextmanager
def an_agent(home: Path, answer: OrderAnswer | None) -> Iterator[list[orders.Order]]:
    """Answers each order as an agent does, with this; with None it never takes one."""
    taken: list[orders.Order] = []
    ended = threading.Event()

    def obey() -> None:
        while not ended.wait(0.02):
            for order_id, order in orders.take_orders(home) if answer else []:
                taken.append(order)
                orders.answer(home, order_id, answer)  # type: ignore[arg-type] # not None: see above

    agent = threading.Thread(target=obey)
    agent.start()
    try:
        yield taken
    finally:
        ended.set()
        agent.join()


@pytest.mark.parametrize("words", ORDERS.values(), ids=" ".join)
def test_without_an_agent_an_order_ends_with_three(lived: Device, words: tuple[str, ...]) -> None:
    said = lived(*words)

    assert (said.code, said.is_one_line()) == (3, True)
    assert "baserunner run" in said.err
    assert not (lived.home / "orders").exists()


@pytest.mark.parametrize("kind", OrderKind)
def test_an_order_is_handed_over_and_its_answer_said(lived: Device, kind: OrderKind) -> None:
    with (
        lived.writing(),
        an_agent(lived.home, OrderAnswer(done=True, said="it is under way")) as got,
    ):
        said = lived(*ORDERS[kind])

    assert (said.code, said.out) == (0, "it is under way\n")
    assert [order.kind for order in got] == [kind]
    assert list((lived.home / "orders").iterdir()) == []


def test_an_order_that_is_refused_ends_with_one_and_the_reason(lived: Device) -> None:
    no = OrderAnswer(done=False, said="no update is under way")
    with lived.writing(), an_agent(lived.home, no):
        said = lived("update", "force", "--yes")

    assert (said.code, said.is_one_line()) == (1, True)
    assert "no update is under way" in said.err


def test_an_order_that_nobody_takes_is_withdrawn_so_that_it_is_not_obeyed_tomorrow(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baserunner.cli.process.ANSWER_WITHIN_S", 0.3)
    with lived.writing(), an_agent(lived.home, None):
        said = lived("reboot", "--yes")

    assert (said.code, said.is_one_line()) == (1, True)
    assert "withdrawn" in said.err
    assert list((lived.home / "orders").iterdir()) == []


@pytest.mark.parametrize("words", [("reboot",), ("update", "force")], ids=" ".join)
def test_where_nobody_can_be_asked_yes_must_be_said(lived: Device, words: tuple[str, ...]) -> None:
    with lived.writing():
        said = lived(*words, stdin="y\n")

    assert (said.code, said.is_one_line()) == (2, True)
    assert "--yes" in said.err
    assert not (lived.home / "orders").exists()


@pytest.mark.parametrize("given", ["", "\n", "short", "bjt_ with spaces in the middle of it"])
def test_what_is_no_join_token_is_not_tried(device: Device, given: str) -> None:
    said = device("enroll", stdin=given, BASEOS_CLOUDLY_URL=CLOUDLY)

    assert (said.code, said.is_one_line()) == (2, True)
    assert "cloudly token create" in said.err
    assert not device.home.exists()


def test_what_a_qr_code_says_is_a_join_token_too(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def enroll_now(_settings: object, token: SecretStr) -> tuple[int, str]:
        tried.append(token.get_secret_value())
        return 0, "enrolled"

    monkeypatch.setattr("baserunner.cli.process.enroll_now", enroll_now)

    said = lived(
        "enroll",
        stdin=f"baseos-join:v1?cloudly={CLOUDLY}&token={TOKEN}\n",
        BASEOS_CLOUDLY_URL=CLOUDLY,
    )

    assert (said.code, tried) == (0, [TOKEN])


@pytest.mark.parametrize(
    ("code", "about"),
    [
        (f"baseos-join:v1?cloudly=https://other.example&token={TOKEN}", "other.example"),
        (f"baseos-join:v9?cloudly={CLOUDLY}&token={TOKEN}", "version v1"),
        (f"baseos-join:v1?cloudly={CLOUDLY}", "no join token"),
    ],
)
def test_a_join_code_that_is_not_for_this_device_is_not_tried(
    device: Device, code: str, about: str
) -> None:
    said = device("enroll", stdin=code, BASEOS_CLOUDLY_URL=CLOUDLY)

    assert (said.code, said.is_one_line()) == (2, True)
    assert about in said.err
    assert TOKEN not in said.err
    assert not device.home.exists()


def test_a_token_file_that_is_not_there_is_named(device: Device) -> None:
    said = device("enroll", "--token-file", "/nowhere/token", BASEOS_CLOUDLY_URL=CLOUDLY)

    assert (said.code, said.is_one_line()) == (2, True)
    assert "/nowhere/token" in said.err


def test_enrolling_without_settings_names_the_setting(device: Device) -> None:
    said = device("enroll", stdin=TOKEN)

    assert (said.code, said.is_one_line()) == (2, True)
    assert "BASEOS_CLOUDLY_URL=" in said.err


def test_enrolling_without_a_volume_is_one_line_without_the_token(
    device: Device, tmp_path: Path
) -> None:
    said = device(
        "enroll", stdin=TOKEN, BASEOS_CLOUDLY_URL=CLOUDLY, BASEOS_DATA_DIR=str(tmp_path / "none")
    )

    assert (said.code, said.is_one_line()) == (1, True)
    assert TOKEN not in said.out + said.err


def test_a_token_for_a_running_agent_is_put_down_for_its_owner_only(
    lived: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baserunner.cli.process.ENROLL_WITHIN_S", 0.3)
    with lived.writing():
        said = lived("enroll", stdin=TOKEN, BASEOS_CLOUDLY_URL=CLOUDLY)

    token = lived.home / orders.TOKEN_FILE
    assert (said.code, said.is_one_line()) == (1, True)
    assert "baserunner why enrollment" in said.err
    assert token.read_text() == TOKEN
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": "cloudly.example"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": CLOUDLY, "BASEOS_LOG_LEVEL": "LOUD"}, "BASEOS_LOG_LEVEL"),
        ({"BASEOS_CLOUDLY_URL": CLOUDLY, "BASEOS_JOIN_TOKEN": "x y"}, "BASEOS_JOIN_TOKEN"),
        (
            {"BASEOS_CLOUDLY_URL": CLOUDLY, "BALENA_SUPERVISOR_API_KEY": "abc"},
            "BALENA_SUPERVISOR_ADDRESS",
        ),
        ({"BASEOS_CLOUDLY_URL": CLOUDLY, "SERVEZONE_RUNTIME": "other"}, "SERVEZONE_RUNTIME"),
    ],
)
def test_a_wrong_setting_keeps_the_agent_from_starting_with_one_line_that_names_it(
    device: Device, settings: dict[str, str], named: str
) -> None:
    said = device("run", **settings)

    assert (said.code, said.is_one_line()) == (2, True)
    assert named in said.err
    assert not device.home.exists()
