"""What a person may order of a rollout, a command each: who, why, and the one fact that it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json
from cloudly.cli.people import ByOption, Reason, user
from cloudly.cli.rollout_create import Number, number_of

if TYPE_CHECKING:
    from cloudly.rollouts.counting import Decision

Note = Annotated[str, typer.Option(help="Kept with the rollout's story.")]


def ask_approval(
    rollout: Number, *, by: ByOption = None, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Ask somebody to approve a draft."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.ask_approval(one, by=who), as_json, data_dir)


def approve(
    rollout: Number,
    *,
    note: Note = "",
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say yes to a rollout that waits for approval."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(
        rollout, lambda one, plan: orders.approve(one, plan, by=who, note=note), as_json, data_dir
    )


def refuse(
    rollout: Number,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say no to a rollout that waits for approval: it is a draft again."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.refuse(one, by=who, reason=reason), as_json, data_dir)


def approve_phase(
    rollout: Number,
    *,
    note: Note = "",
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say yes to the phase that it waits for."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(
        rollout,
        lambda one, plan: orders.approve_phase(one, plan, by=who, note=note),
        as_json,
        data_dir,
    )


def start(
    rollout: Number, *, by: ByOption = None, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Start it: the first phase opens, and nodes are let in as they check in."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, plan: orders.start(one, plan, by=who), as_json, data_dir)


def pause(
    rollout: Number,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Let nobody more in; what is in flight goes on."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.pause(one, by=who, reason=reason), as_json, data_dir)


def resume(
    rollout: Number,
    *,
    reason: Reason = "",
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Go on after a pause; after a halt, with a reason, and the evidence starts afresh."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.resume(one, by=who, reason=reason), as_json, data_dir)


def halt(
    rollout: Number,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Do what the evidence would do."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.halt(one, by=who, reason=reason), as_json, data_dir)


def roll_back(
    rollout: Number,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Turn every node that has the release back to what it ran well before."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.roll_back(one, by=who, reason=reason), as_json, data_dir)


def abort(
    rollout: Number,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """End it here: nobody more gets it, nobody is turned back, and it counts nothing more."""
    from cloudly.rollouts import orders

    who = user() if by is None else by
    ordered(rollout, lambda one, _: orders.abort(one, by=who, reason=reason), as_json, data_dir)


def ordered(
    rollout: str,
    decide: Callable[[Any, Any], Decision],
    as_json: bool,  # noqa: FBT001 - how it is printed
    data_dir: Any,
) -> None:
    from cloudly.store.rollouts import listing, story
    from interfaces.world import RealWorld, now_ms

    now, number = now_ms(RealWorld()), number_of(rollout)
    with opened(data_dir) as store:
        told = store.write_now(lambda db: story.order(db, number, decide, now_ms=now))
        if as_json:
            print_json(store.read_now(lambda db: listing.shown(db, number, now)))
            return
    typer.echo(f"rollout {number} is {told.believed.state}")
