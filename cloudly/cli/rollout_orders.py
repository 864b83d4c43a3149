"""What a person may order of a rollout, a command each: who, why, and the one fact that it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json
from cloudly.cli.people import ByOption, Reason, user
from cloudly.cli.rollout_create import Number, number_of

if TYPE_CHECKING:
    from pathlib import Path

    from cloudly.rollouts.counting import Decision

Note = Annotated[str, typer.Option(help="Kept with the rollout's story.")]

WITH_THE_PLAN = {"start", "approve", "approve-phase"}
"""Orders that the plan has a say in."""


def add_to(app: typer.Typer) -> None:
    """A command for each order, as `cloudly rollout --help` lists them."""
    for order, (command, text) in COMMANDS.items():
        app.command(order, help=text)(command(order))


def _plain(order: str) -> Callable[..., None]:
    def command(
        rollout: Number, *, by: ByOption = None, as_json: AsJson = False, data_dir: DataDir = None
    ) -> None:
        _order(rollout, order, by, as_json, data_dir)

    return command


def _noted(order: str) -> Callable[..., None]:
    def command(
        rollout: Number,
        *,
        note: Note = "",
        by: ByOption = None,
        as_json: AsJson = False,
        data_dir: DataDir = None,
    ) -> None:
        _order(rollout, order, by, as_json, data_dir, note=note)

    return command


def _reasoned(order: str, unsaid: Any = ...) -> Callable[..., None]:
    """`unsaid`: the reason where none is given; `...`: one must be."""

    def command(
        rollout: Number,
        *,
        reason: Reason = unsaid,
        by: ByOption = None,
        as_json: AsJson = False,
        data_dir: DataDir = None,
    ) -> None:
        _order(rollout, order, by, as_json, data_dir, reason=reason)

    return command


def _order(
    rollout: str,
    order: str,
    by: str | None,
    as_json: bool,  # noqa: FBT001 - how it is printed
    data_dir: Path | None,
    **words: str,
) -> None:
    from cloudly.rollouts import orders
    from cloudly.store.rollouts import listing, story
    from interfaces.world import RealWorld, now_ms

    who = user() if by is None else by
    decide: Callable[..., Decision] = getattr(orders, order.replace("-", "_"))

    def decided(one: Any, plan: Any) -> Decision:
        told = (one, plan) if order in WITH_THE_PLAN else (one,)
        return decide(*told, by=who, **words)

    now, number = now_ms(RealWorld()), number_of(rollout)
    with opened(data_dir) as store:
        done = store.write_now(lambda db: story.order(db, number, decided, now_ms=now))
        if as_json:
            print_json(store.read_now(lambda db: listing.shown(db, number, now)))
            return
    typer.echo(f"rollout {number} is {done.believed.state}")


COMMANDS: dict[str, tuple[Callable[[str], Callable[..., None]], str]] = {
    "ask-approval": (_plain, "Ask somebody to approve a draft."),
    "approve": (_noted, "Say yes to a rollout that waits for approval."),
    "refuse": (_reasoned, "Say no to a rollout that waits for approval: it is a draft again."),
    "approve-phase": (_noted, "Say yes to the phase that it waits for."),
    "start": (_plain, "Start it: the first phase opens, and nodes are let in as they check in."),
    "pause": (_reasoned, "Let nobody more in; what is in flight goes on."),
    "resume": (
        partial(_reasoned, unsaid=""),
        "Go on after a pause; after a halt, with a reason, and the evidence starts afresh.",
    ),
    "halt": (_reasoned, "Do what the evidence would do."),
    "roll-back": (
        _reasoned,
        "Turn every node that has the release back to what it ran well before.",
    ),
    "abort": (
        _reasoned,
        "End it here: nobody more gets it, nobody is turned back, and it counts nothing more.",
    ),
}
