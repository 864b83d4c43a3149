"""`cloudly channel`: named streams of approved releases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, shown
from cloudly.cli.people import ByOption, Reason, by_now

if TYPE_CHECKING:
    from cloudly.store.governance.channels import Entry
    from cloudly.store.sql import Connection, Row

app = typer.Typer(help="Channels: named streams of approved releases.", no_args_is_help=True)

ChannelArgument = Annotated[
    str, typer.Argument(metavar="CHANNEL", help="Its name, from `cloudly channel list`.")
]
ReleaseArgument = Annotated[
    str, typer.Argument(metavar="RELEASE", help="A version, a commit, or its first digits.")
]
Approvals = Annotated[
    int | None, typer.Option(help="How many persons must say yes before a release is published.")
]
SecondPerson = Annotated[
    bool, typer.Option("--second-person", help="The yes of who proposed it does not count.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash.")],
    *,
    approvals: Approvals = None,
    second_person: SecondPerson = False,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Make a channel. Without options, what is proposed there is published at once."""
    from cloudly.store.governance import channels

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(
            lambda db: channels.create(
                db, name, who, approvals_needed=approvals, second_person=second_person
            )
        )
    typer.echo(f"channel {name} is made")


@app.command()
def policy(
    channel: ChannelArgument,
    *,
    approvals: Approvals = None,
    second_person: SecondPerson = False,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Change how many must say yes; it counts for what is not published yet. Without options: nobody."""
    from cloudly.store.governance import channel_policy, channels

    who = by_now(by)

    def work(db: Connection) -> Row:
        row = channels.find(db, channel)
        channel_policy.set_policy(
            db, row, who, approvals_needed=approvals, second_person=second_person
        )
        return channels.find(db, channel)

    with opened(data_dir) as store:
        row = dict(store.write_now(work))
    typer.echo(f"channel {channel}: approvals {_needs(row)}")


@app.command()
def remove(channel: ChannelArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Remove a channel that no fleet follows and that has no floor. What it published stays where it runs."""
    from cloudly.store.governance import channel_policy, channels

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: channel_policy.remove(db, channels.find(db, channel), who))
    typer.echo(f"channel {channel} is removed; the audit keeps what was said in it")


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the channels, what each offers, and which fleets follow it."""
    from cloudly.store.governance import channels

    with opened(data_dir) as store:
        rows = [dict(row) for row in store.read_now(channels.listed)]
        for row in rows:
            newest = store.read_now(lambda db, n=row["id"]: channels.newest(db, n))  # type: ignore[misc]
            row["offers"] = newest and newest["version"]
            row["fleets"] = store.read_now(lambda db, n=row["id"]: channels.followers(db, n))  # type: ignore[misc]
            row["second_person"] = bool(row["second_person"])
    if as_json:
        print_json(rows)
        return
    print_table(
        ("channel", "offers", "published", "waiting", "approvals", "fleets"),
        [
            (row["name"], row["offers"], row["published"], row["waiting"], _needs(row),
             " ".join(row["fleets"]))
            for row in rows
        ],
        empty="No channels yet. `cloudly channel create` makes one.",
    )  # fmt: skip


def _needs(row: dict[str, Any]) -> str:
    return f"{row['approvals']}{', second person' if row['second_person'] else ''}"


@app.command()
def show(channel: ChannelArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a channel's releases, the newest first, what was said of each, and what happened."""
    from cloudly.store import audit
    from cloudly.store.governance import channels

    with opened(data_dir) as store:
        row = dict(store.read_now(lambda db: channels.find(db, channel)))
        entries = store.read_now(lambda db: channels.entries(db, channels.find(db, channel)))
        newest = store.read_now(lambda db: channels.newest(db, row["id"]))
        fleets = store.read_now(lambda db: channels.followers(db, row["id"]))
        acts = store.read_now(lambda db: audit.listed(db, about=f"channel/{channel}"))
    offers: str | None = newest["commit_id"] if newest else None
    if as_json:
        print_json({
            "channel": row["name"], "approvals": row["approvals"],
            "second_person": bool(row["second_person"]), "offers": offers, "fleets": fleets,
            "releases": [_document(one) for one in entries], "acts": [audit.document(one) for one in acts],
        })  # fmt: skip
        return
    typer.echo(
        f"channel {row['name']}: approvals {_needs(row)}; followed by {', '.join(fleets) or 'no fleet'}"
    )
    _print_entries(entries, offers)


def _document(one: Entry) -> dict[str, Any]:
    from cloudly.governance.approvals import missing

    return {
        "seq": one.seq,
        "version": one.proposal.version,
        "release": one.commit,
        "state": one.proposal.state,
        "floor": one.is_floor,
        "proposed_by": one.proposal.proposed_by,
        "proposed_at_ms": one.proposed_at_ms,
        "note": one.note,
        "banned": one.banned,
        "said": [
            {"who": said.who, "decision": said.decision, "at_ms": said.at_ms, "note": said.note}
            for said in one.said
        ],
        "missing": "" if one.published_at_ms or one.withdrawn_at_ms else missing(one.proposal),
        "published_at_ms": one.published_at_ms,
        "withdrawn_at_ms": one.withdrawn_at_ms,
        "withdrawn_by": one.withdrawn_by,
        "withdrawn_why": one.withdrawn_why,
    }


def _print_entries(entries: list[Entry], offers: str | None) -> None:
    from interfaces.why import when

    typer.echo("")
    print_table(
        ("seq", "version", "state", "floor", "proposed", "reason"),
        [
            (one.seq, one.proposal.version,
             f"{one.proposal.state}{', offered' if one.commit == offers else ''}",
             "floor" if one.is_floor else "",
             f"{when(one.proposed_at_ms)} by {one.proposal.proposed_by}", _why(one))
            for one in entries
        ],
        empty="It is empty. `cloudly channel propose` puts a release there.",
    )  # fmt: skip


def _why(one: Entry) -> str:
    """What was said of it, and what it waits for."""
    from cloudly.governance.approvals import missing
    from interfaces.why import when

    parts = [one.note] if one.note else []
    parts += [
        f"{said.who} {said.decision} it {when(said.at_ms)}{f': {said.note}' if said.note else ''}"
        for said in one.said
    ]
    if one.withdrawn_at_ms:
        parts.append(
            f"{one.withdrawn_by} withdrew it {when(one.withdrawn_at_ms)}: {one.withdrawn_why}"
        )
    elif one.published_at_ms:
        parts.append(f"published {when(one.published_at_ms)}")
    else:
        parts.append(missing(one.proposal) or "nothing is missing: `cloudly channel publish`")
    if one.banned:
        parts.append(one.banned)
    return "; ".join(parts)


@app.command()
def propose(  # noqa: PLR0913 - options of a command
    channel: ChannelArgument,
    release: ReleaseArgument,
    *,
    floor: Annotated[
        bool, typer.Option("--floor", help="No upgrade within the channel may skip it.")
    ] = False,
    note: Annotated[str, typer.Option(help="For those who approve it.")] = "",
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Put a release into a channel; it is published when enough persons have approved it."""
    from cloudly.store.governance import channels

    who = by_now(by)
    change(
        data_dir,
        channel,
        release,
        lambda db, row, found: channels.propose(db, row, found, who, floor=floor, note=note),
    )


@app.command()
def publish(
    channel: ChannelArgument,
    release: ReleaseArgument,
    *,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Publish what all have agreed to and a ban held up; otherwise it happens by itself."""
    from cloudly.store.governance import channels

    who = by_now(by)
    change(data_dir, channel, release, lambda db, row, found: channels.publish(db, row, found, who))


@app.command()
def withdraw(
    channel: ChannelArgument,
    release: ReleaseArgument,
    *,
    reason: Reason,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """From now on the channel does not offer it, for good. What runs it keeps it."""
    from cloudly.store.governance import channels

    who = by_now(by)
    change(
        data_dir,
        channel,
        release,
        lambda db, row, found: channels.withdraw(db, row, found, who, reason),
    )


@app.command()
def floor(
    channel: ChannelArgument,
    release: ReleaseArgument,
    state: Annotated[str, typer.Argument(metavar="on|off", help="Whether it is one.")],
    *,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Say whether a release is a floor: one that no upgrade within the channel may skip."""
    if state not in {"on", "off"}:
        raise typer.BadParameter(f"{state!r} is neither on nor off")
    from cloudly.store.governance import channels

    who, on = by_now(by), state == "on"
    done = decide(
        data_dir,
        channel,
        release,
        lambda db, row, found: channels.set_floor(db, row, found, who, on=on),
    )
    is_one = "a floor" if done.is_floor else "no floor"
    typer.echo(f"release {done.proposal.version} is {is_one} of channel {channel}")


def decide(
    data_dir: Path | None,
    channel: str,
    release: str,
    work: Callable[[Connection, Row, int], Entry],
) -> Entry:
    """One decision about a release in a channel, by their names. Raises BadOrder."""
    from cloudly.service import channels

    with opened(data_dir) as store:
        return store.write_now(lambda db: channels.decide(db, channel, release, work))


def change(
    data_dir: Path | None,
    channel: str,
    release: str,
    work: Callable[[Connection, Row, int], Entry],
) -> None:
    """The same, and then told what became of the release."""
    from cloudly.governance.approvals import State, missing

    proposal = decide(data_dir, channel, release, work).proposal
    words = f"release {proposal.version} in channel {proposal.channel}: {proposal.state}"
    if proposal.state in {State.PROPOSED, State.REFUSED}:
        words += f"; {missing(proposal) or 'nothing is missing, but it is banned'}"
    typer.echo(shown(words))
