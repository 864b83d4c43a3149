"""`cloudly rollout`: the order to a fleet, in phases, that stops itself."""

from __future__ import annotations

from typing import Any

import typer

from cloudly.cli import rollout_create, rollout_orders
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, shown
from cloudly.cli.rollout_create import Number, number_of

app = typer.Typer(
    help="Rollouts: a release to many nodes, in phases, halted by evidence.", no_args_is_help=True
)
app.command()(rollout_create.create)
app.command("dry-run")(rollout_create.dry_run)
rollout_orders.add_to(app)


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the rollouts, the newest first."""
    from cloudly.store.rollouts import listing
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    with opened(data_dir) as store:
        rows = store.read_now(listing.listed)
    if as_json:
        print_json(rows)
        return
    now = now_ms(RealWorld())
    print_table(
        ("rollout", "release", "state", "phase", "given", "in flight", "succeeded", "failed", "since"),
        [
            (row["rollout"], row["version"], row["state"],
             f"{row['opened']}/{row['of_phases']} {row['phase']}".strip(), row["granted"],
             row["in_flight"], row["succeeded"], _bad(row), ago(row["entered_at_ms"], now))
            for row in rows
        ],
        empty="No rollouts yet. `cloudly rollout create VERSION` plans one.",
    )  # fmt: skip


@app.command()
def show(rollout: Number, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show one: its phases, the evidence, what failed, and what it waits for."""
    from cloudly.rollouts.why import Why
    from cloudly.store.rollouts import listing, newcomers, story
    from interfaces.why import duration, lines
    from interfaces.world import RealWorld, now_ms

    now, number = now_ms(RealWorld()), number_of(rollout)
    with opened(data_dir) as store:
        told = store.read_now(lambda db: listing.shown(db, number, now))
        behind = store.read_now(lambda db: newcomers.left_behind(db, story.recall(db, number), now))
    if as_json:
        print_json({**told, "new_nodes_elsewhere": behind})
        return
    typer.echo(f"rollout {told['rollout']} of {shown(told['version'])}: {told['state']}")
    print_table(
        ("", ""),
        [
            ("release", told["release"]),
            ("nodes", told["selector"] or "all"),
            ("created by", told["created_by"]),
            ("approved by", told["approved_by"] or None),
            ("evidence", told["evidence"]),
            ("halted at", told["failures_to_halt"] and f"{told['failures_to_halt']} failures, as things stand"),
            ("one may", ", ".join(told["may"]) or "nothing: it has ended"),
        ],
        empty="",
    )  # fmt: skip
    typer.echo("")
    print_table(
        ("phase", "size", "state", "given", "in flight", "succeeded", "failed", "superseded", "soak"),
        [
            (one["name"], one["size"], one["state"], one["granted"], one["in_flight"],
             one["succeeded"], _bad(one), one["superseded"], duration(one["soak_s"] * 1000))
            for one in told["phases"]
        ],
        empty="",
    )  # fmt: skip
    if told["failures"]:
        typer.echo("")
        print_table(
            ("failed", "reason", "nodes", "for example"),
            [
                (one["outcome"], one["reason"] or "no reason was given", one["nodes"], one["example"][:12])
                for one in told["failures"]
            ],
            empty="",
        )  # fmt: skip
    if told["why"] is not None:
        typer.echo("")
        for line in lines(Why(**told["why"]), now_ms=now):
            typer.echo(line)
    for one in behind:
        typer.echo("")
        typer.echo(
            shown(
                f"nodes that enroll into fleet {one['fleet']} from now on get {one['version'] or 'no release'}, not"
                f" {told['version']}: `cloudly release set {told['version']} --fleet {one['fleet']}` changes that"
            )
        )


@app.command()
def why(rollout: Number, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Tell what it waits for, who owns that, since when, until when, and what then."""
    from cloudly.rollouts.why import Why
    from cloudly.store.rollouts import listing, story
    from interfaces.why import lines
    from interfaces.world import RealWorld, now_ms

    now, number = now_ms(RealWorld()), number_of(rollout)
    with opened(data_dir) as store:
        told = store.read_now(lambda db: listing.told_why(db, story.recall(db, number), now))
    if as_json:
        print_json(told)
    elif told is None:
        typer.echo(f"rollout {number} has ended: `cloudly rollout show {number}` tells how")
    else:
        for line in lines(Why(**told), now_ms=now):
            typer.echo(line)


@app.command()
def nodes(rollout: Number, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show every node that was given the order, and what became of it."""
    from cloudly.store.rollouts import given, story
    from interfaces.why import when

    number = number_of(rollout)

    def ask(db: Any) -> list[dict[str, Any]]:
        story.must_be(db, number)
        return given.grants(db, number)

    with opened(data_dir) as store:
        rows = store.read_now(ask)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("node", "name", "phase", "given at", "outcome", "reason"),
        [
            (row["node"][:12], row["hostname"], row["phase"] + 1, when(row["at_ms"]),
             row["outcome"] or "in flight", row["reason"])
            for row in rows
        ],
        empty="No node was given the order yet.",
    )  # fmt: skip


@app.command()
def events(rollout: Number, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show its story, fact by fact, and whether the chain of facts is whole."""
    from cloudly.store.rollouts import listing, story
    from interfaces.why import when

    number = number_of(rollout)
    with opened(data_dir) as store:
        store.read_now(lambda db: story.recall(db, number))
        rows = store.read_now(lambda db: listing.events(db, number))
        broken = store.read_now(lambda db: story.first_broken(number, story.facts(db, number)))
    if as_json:
        print_json({"rollout": number, "events": rows, "first_broken": broken})
    else:
        print_table(
            ("seq", "when", "fact", "state", "lease", "reason"),
            [
                (row["seq"], when(row["at_ms"]), row["kind"], row["to"] or "(a note)",
                 row["lease"] or None, row["says"])
                for row in rows
            ],
            empty="",
        )  # fmt: skip
    if broken is not None:
        from cloudly.problems import BadOrder

        raise BadOrder(
            f"the chain of rollout {number} is broken at fact {broken}: it, or one before it, was changed by hand"
        )


@app.command()
def replay(rollout: Number, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Fold its facts once more: what was believed after each."""
    from cloudly.store.rollouts import listing
    from interfaces.why import when

    number = number_of(rollout)
    with opened(data_dir) as store:
        steps = store.read_now(lambda db: listing.replay(db, number))
    if as_json:
        print_json(steps)
        return
    for step in steps:
        typer.echo(f"{step['seq']:>5}  {when(step['at_ms'])}  {step['kind']:<21} → {step['state']}")
        for name, value in step["changed"].items():
            if name not in {"state", "entered_at_ms"}:
                typer.echo(shown(f"         {name} = {value}"))


def _bad(row: dict[str, Any]) -> int:
    return sum(row[name] for name in ("failed", "rolled_back", "overdue", "dark", "relapsed"))
