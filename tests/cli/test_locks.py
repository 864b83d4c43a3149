"""`baserunner locks`, `locks break`, `why` and `status`: who holds updates up, from the journal alone."""

from __future__ import annotations

import pytest

from baserunner.orders import Order, OrderAnswer, OrderKind
from interfaces.world import RealWorld
from tests.cli.given import Device
from tests.cli.test_orders import an_agent


def hold(device: Device, number: int = 1, *, reason: str = "nightly backup", **more: object) -> str:
    """A neighbour holds a lease; returns its id."""
    lock = f"{number:032x}"
    with device.writing() as tell:
        tell(
            f"lock/{number}", "acquired", lock=lock, owner="backup", reason=reason,
            **{"ttl_s": 600.0, "key_sha256": "a" * 64, "request_sha256": "b" * 64, **more},
        )  # fmt: skip
    return lock


def end(device: Device, kind: str, **values: object) -> None:
    with device.writing() as tell:
        tell("lock/1", kind, **values)


def test_who_holds_one_why_and_how_long_is_listed_without_an_agent(lived: Device) -> None:
    world = RealWorld()
    lived.boot, lived.started = world.boot_id(), -round(world.monotonic())
    lock = hold(lived)

    table, [row] = lived("locks").out, lived("locks", "--json").json

    assert "lock/1" in table
    assert "nightly backup" in table
    assert (row["lock"], row["owner"], row["state"]) == (lock, "backup", "held")
    assert 500 < row["left_s"] <= 640
    assert row["until_ms"] - row["since_ms"] == 600_000


def test_after_a_boot_its_rest_has_not_begun_to_count(lived: Device) -> None:
    hold(lived)

    assert lived("locks", "--json").json[0]["left_s"] is None
    assert "the host has booted" in lived("locks").out


def test_where_nobody_holds_one_it_says_so_and_with_all_how_the_last_ones_ended(
    lived: Device,
) -> None:
    hold(lived)
    end(lived, "broken", by="uid 0", reason="it is urgent")

    held, every = lived("locks"), lived("locks", "--all")

    assert (held.code, held.out) == (0, "no update lock is held: nobody holds updates up\n")
    assert lived("locks", "--json").json == []
    assert "broken by uid 0: it is urgent" in every.out


def test_a_reason_drives_neither_the_terminal_nor_its_markup(lived: Device) -> None:
    hold(lived, reason="[red]\x1b[2Jgone")

    for words in (["locks"], ["status"], ["why"]):
        out = lived(*words).out
        assert "\x1b[2J" not in out
        assert "[red]" in out


def test_why_names_the_holder_for_an_update_that_is_staged(lived: Device) -> None:
    hold(lived)
    with lived.writing() as tell:
        lived.update(tell, 3, upto="staged")

    [answer] = lived("why", "app-update", "--json").json

    assert answer["owner"] == "onebox"
    assert "backup holds an update lock since" in answer["waits_for"]
    assert answer["until_ms"] is not None


def test_status_has_a_line_for_it(lived: Device) -> None:
    assert "none is held" in lived("status").out

    hold(lived)

    assert "backup holds an update lock" in lived("status").out
    assert len(lived("status", "--json").json["locks"]) == 1


def test_breaking_one_hands_the_agent_its_name_and_the_reason(lived: Device) -> None:
    hold(lived)

    with lived.writing(), an_agent(lived.home, OrderAnswer(done=True, said="it is broken")) as got:
        said = lived("locks", "break", "lock/1", "--reason", "it is urgent", "--yes")

    assert (said.code, said.out) == (0, "it is broken\n")
    [order] = got
    assert isinstance(order, Order)
    assert (order.kind, order.lock, order.reason) == (
        OrderKind.BREAK_LOCK,
        "lock/1",
        "it is urgent",
    )
    assert order.by.startswith("uid ")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "two\nlines"])
def test_breaking_one_needs_a_reason_of_one_line(lived: Device, reason: str) -> None:
    said = lived("locks", "break", "lock/1", "--reason", reason, "--yes")

    assert (said.code, said.is_one_line()) == (2, True)


def test_breaking_one_without_an_agent_says_that_none_runs(lived: Device) -> None:
    said = lived("locks", "break", "lock/1", "--reason", "urgent", "--yes")

    assert (said.code, said.is_one_line()) == (3, True)
