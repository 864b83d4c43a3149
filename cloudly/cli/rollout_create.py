"""`cloudly rollout create` and `dry-run`: a plan, what it would do, and the draft that it makes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.people import ByOption, user
from cloudly.cli.policy import (
    ApplyDeadline,
    DownloadDeadline,
    HealthDeadline,
    HealthSoak,
    MaxApplyAttempts,
    policy_of,
)
from cloudly.cli.rollout_plan import plan_of, seconds, share

if TYPE_CHECKING:
    from cloudly.rollouts.dry_run import DryRun
    from cloudly.rollouts.plan import Plan
    from cloudly.service.rollout_orders import Ask

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="Of a release, or its commit; see `release list`.")
]
Number = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="Its number, from `cloudly rollout list`.")
]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="A whole plan as JSON, instead of the options."),
]
Selector = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="SELECTOR",
        help="Which nodes: fleet=lab, label.site=a|b, version<2. All.",
    ),
]
Phases = Annotated[
    list[str] | None,
    typer.Option(
        "--phase",
        metavar="[NAME:]SIZE",
        help="1%, 25 (nodes), label.site=lab; behind it :soak=1h, :at-least=3, :approval. 1%, 10%, 50%, 100%.",
    ),
]
Soak = Annotated[str | None, typer.Option(help="Of phases that do not say their own. 1h.")]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="'mon-fri 22:00-04:00 Europe/Berlin'; several. Always."),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="In flight at most. 1000.")]
Deadline = Annotated[str | None, typer.Option(help="From start to end; then it is halted. 14d.")]
NodeDeadline = Annotated[str | None, typer.Option(help="Of each node; then it failed. 6h.")]
DarkAfter = Annotated[str | None, typer.Option(help="Silent for so long is dark. 15m.")]
BaseRate = Annotated[str | None, typer.Option(help="Failures that are nobody's fault. 2%.")]
WorstRate = Annotated[str | None, typer.Option(help="Failures that must not go unseen. 10%.")]
MinFailures = Annotated[int | None, typer.Option(min=1, help="Fewer never halt it. 2.")]
MostFailures = Annotated[int | None, typer.Option(min=1, help="So many always halt it.")]
DarkCounts = Annotated[
    bool | None, typer.Option("--dark-counts/--dark-does-not-count", help="As failures. They do.")
]
NeedsApproval = Annotated[
    bool | None, typer.Option("--needs-approval", help="Somebody must approve it before its start.")
]
SecondPerson = Annotated[bool | None, typer.Option("--second-person", help="Not who created it.")]


def create(  # noqa: PLR0913 - one per part of a plan
    version: Version,
    *,
    select: Selector = None,
    phase: Phases = None,
    soak: Soak = None,
    plan: PlanFile = None,
    window: Windows = None,
    concurrency: Concurrency = None,
    deadline: Deadline = None,
    node_deadline: NodeDeadline = None,
    dark_after: DarkAfter = None,
    base_rate: BaseRate = None,
    worst_rate: WorstRate = None,
    min_failures: MinFailures = None,
    most_failures: MostFailures = None,
    dark_counts: DarkCounts = None,
    needs_approval: NeedsApproval = None,
    second_person: SecondPerson = None,
    health_soak: HealthSoak = None,
    health_deadline: HealthDeadline = None,
    apply_deadline: ApplyDeadline = None,
    download_deadline: DownloadDeadline = None,
    max_apply_attempts: MaxApplyAttempts = None,
    start: Annotated[bool, typer.Option("--start", help="And start it at once.")] = False,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Plan a rollout. It is a draft until somebody starts it; with no options, the careful plan of the defaults."""
    said = plan_of(
        plan, phases=phase or [], windows=window or [], soak=soak, selector=select,
        concurrency=concurrency, deadline_s=seconds("--deadline", deadline),
        node_deadline_s=seconds("--node-deadline", node_deadline),
        dark_after_s=seconds("--dark-after", dark_after), base_rate=share("--base-rate", base_rate),
        worst_rate=share("--worst-rate", worst_rate), min_failures=min_failures,
        most_failures=most_failures, dark_counts=dark_counts, needs_approval=needs_approval,
        second_person=second_person,
    )  # fmt: skip
    policy = policy_of(
        health_soak_s=health_soak,
        health_deadline_s=health_deadline,
        apply_deadline_s=apply_deadline,
        download_deadline_s=download_deadline,
        max_apply_attempts=max_apply_attempts,
    ).model_dump_json()
    from cloudly.service.rollout_orders import Ask

    who = user() if by is None else by
    made = _made(data_dir, Ask(version, said, policy, who, start))
    if as_json:
        print_json(made)
        return
    number = made["rollout"]
    typer.echo(f"rollout {number} of {made['version']} is {made['state']}")
    _warn(said)
    if made["state"] == "draft":
        ask = "ask-approval" if said.needs_approval else "start"
        typer.echo(
            f"`cloudly rollout dry-run {number}` tells whom it reaches, `rollout {ask} {number}` goes on"
        )


def _made(data_dir: Path | None, ask: Ask) -> dict[str, Any]:
    """The rollout, as it is shown; made, and started too, in one decision."""
    from cloudly.service import rollout_orders
    from cloudly.store.rollouts import listing
    from interfaces.world import RealWorld, new_id, now_ms

    world = RealWorld()
    now = now_ms(world)

    def work(db: Any) -> dict[str, Any]:
        made = rollout_orders.create(db, ask, salt=new_id(world), now_ms=now)
        return listing.shown(db, made.number, now)

    with opened(data_dir) as store:
        return store.write_now(work)


def dry_run(
    rollout: Annotated[
        str,
        typer.Argument(
            metavar="ROLLOUT|VERSION", help="A rollout's number; or, with --plan, a release."
        ),
    ],
    *,
    plan: PlanFile = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Tell what it would do to the fleet as it is: per phase who, and who is left out and why. Nothing is written."""
    from cloudly.rollouts.plan import read
    from cloudly.store.releases import find_release
    from cloudly.store.rollouts import listing, story
    from interfaces.world import RealWorld, new_id, now_ms

    world = RealWorld()
    now = now_ms(world)

    def ask(db: Any) -> tuple[DryRun, Plan]:
        if plan is not None:
            said, release = read(plan.read_bytes()), find_release(db, rollout)
            return listing.tried(db, said, release, number=0, salt=new_id(world), now_ms=now), said
        told = story.recall(db, number_of(rollout))
        return listing.tried(
            db, told.plan, told.release, number=told.number, salt=told.believed.salt, now_ms=now
        ), told.plan

    with opened(data_dir) as store:
        done, tried = store.read_now(ask)
    if as_json:
        print_json(asdict(done))
        return
    _warn(tried)
    _print_dry_run(done)


def _print_dry_run(done: DryRun) -> None:
    print_table(
        ("phase", "size", "nodes", "of any place", "failures that halt", "for example"),
        [
            (one.name, one.size, len(one.nodes), one.of_any_place or None,
             "even all do not" if one.failures_to_halt is None else one.failures_to_halt,
             " ".join(node[:12] for node in one.nodes[:3]))
            for one in done.phases
        ],
        empty="",
    )  # fmt: skip
    if done.beyond:
        typer.echo(f"\n{len(done.beyond)} selected nodes are beyond the last phase")
    if done.left_out:
        typer.echo(f"\n{len(done.left_out)} nodes are left out:")
        print_table(
            ("node", "reason"),
            [(one.node_id[:12], one.why) for one in done.left_out[:20]],
            empty="",
        )


def _warn(plan: Plan) -> None:
    for one in plan.warnings():
        typer.echo(f"warning: {one}")


def number_of(text: str) -> int:
    """`7` or `rollout/7`. Raises BadParameter."""
    digits = text.removeprefix("rollout/")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 15:
        raise typer.BadParameter(
            f"{text!r} is no rollout: give its number, from `cloudly rollout list`"
        )
    return int(digits)
