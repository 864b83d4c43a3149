"""`baserunner journal list|show|tail|export|verify`: the story, on the device or on a copy of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baserunner.cli import show

if TYPE_CHECKING:
    from journal.facts import Fact

app = typer.Typer(help="What happened, in order.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")]
File = Annotated[
    Path | None,
    typer.Option("--file", help="A journal.db, or the folder it is in; default: the agent's own."),
]


@app.command("list")
def list_(as_json: AsJson = False, file: File = None) -> None:  # noqa: FBT002
    """The streams (one per machine and attempt) and where they stand."""
    with show.reader(file) as reader:
        infos = reader.streams()
        if as_json:
            for info in infos:
                show.as_json(_stream_json(info))
            return
        rows = [
            [
                info.name,
                show.coloured(info.state),
                "ended" if info.ended else "open",
                show.moment(info.last.at_ms) if info.last else "",
                info.last.kind if info.last else "",
            ]
            for info in infos
        ]
    if not rows:
        typer.echo("the journal is empty")
        return
    show.table(["stream", "state", "", "last fact (UTC)", "which"], rows)


@app.command("show")
def show_(
    stream: Annotated[str, typer.Argument(help="For example app-update/12.")],
    as_json: AsJson = False,  # noqa: FBT002
    file: File = None,
) -> None:
    """The story of one attempt: relative times, states, reboots, reasons in words."""
    with show.reader(file) as reader:
        try:
            facts = reader.facts(stream=stream)
        except ValueError as error:
            show.fail(str(error), 2)
    if not facts:
        show.fail(f"there is no stream {stream}: see `baserunner journal list`", 1)
    _print_facts(facts, as_json=as_json, first=facts[0])


@app.command()
def tail(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as facts come.")] = False,  # noqa: FBT002
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the newest.")] = 20,
    as_json: AsJson = False,  # noqa: FBT002
    file: File = None,
) -> None:
    """The newest facts of all machines, in their common order."""
    with show.reader(file) as reader:
        facts = reader.tail(count)
        _print_facts(facts, as_json=as_json)
        if follow:
            _follow(reader, facts[-1] if facts else None, as_json=as_json)


@app.command()
def export(
    to: Annotated[
        Path | None, typer.Option("--to", help="A new file; default: standard output.")
    ] = None,
    file: File = None,
) -> None:
    """All of it as ndjson, with its hashes, to be checked elsewhere."""
    from journal.export import lines as lines_of

    with show.reader(file) as reader:
        if to is None:
            for line in lines_of(reader):
                typer.echo(line)
            return
        try:
            with to.open("x", encoding="utf-8") as out:
                for line in lines_of(reader):
                    out.write(line + "\n")
        except FileExistsError:
            show.fail(f"{to} is there already; give a new name", 2)
        except OSError as error:
            show.fail(f"cannot write {to}: {error.strerror}", 1)


@app.command()
def verify(as_json: AsJson = False, file: File = None) -> None:  # noqa: FBT002
    """Check the chain: gaps, damage, anything that does not hang together. Exit code 1 if there is a fault."""
    from journal.verify import verify as check

    with show.reader(file) as reader:
        found = check(reader)
    if as_json:
        show.as_json(
            {
                "ok": found.ok,
                "events": found.events,
                "problems": [
                    {"lane": p.lane, "seq": p.seq, "what": p.what} for p in found.problems
                ],
            }
        )
    elif found.ok:
        typer.echo(f"{found.events} facts, chain unbroken in both lanes")
    else:
        rows = [[str(p.lane), str(p.seq), show.plain(p.what)] for p in found.problems]
        show.table(["lane", "seq", "what is wrong"], rows)
    raise typer.Exit(0 if found.ok else 1)


def _follow(reader: Any, last: Fact | None, *, as_json: bool) -> None:
    import anyio

    from interfaces.world import RealWorld

    async def follow() -> None:
        world = RealWorld()
        after = last.n if last else 0
        while True:
            fresh = reader.facts(after=after, limit=500)
            _print_facts(fresh, as_json=as_json)
            after = fresh[-1].n if fresh else after
            await world.sleep(0.2)

    try:
        anyio.run(follow)
    except KeyboardInterrupt:
        raise typer.Exit from None
    except BrokenPipeError:
        os._exit(0)  # the reader of our pipe is gone; nothing of ours is lost


def _print_facts(facts: list[Fact], *, as_json: bool, first: Fact | None = None) -> None:
    if as_json:
        for fact in facts:
            typer.echo(fact_json(fact))
        return
    previous = None
    for fact in facts:
        for line in _lines(fact, previous, first):
            typer.echo(line)
        previous = fact


CLOCK_JUMP_MS = 5000


def _lines(fact: Fact, previous: Fact | None, first: Fact | None) -> list[str]:
    """One fact as a line for people, with marks before it for a reboot or a jump of the clock."""
    from baserunner.words import sentence

    lines = []
    if previous is not None and previous.boot_id != fact.boot_id:
        lines.append(f"{'':12}  ---- the host booted again ----")
    elif previous is not None:
        jump = (fact.at_ms - previous.at_ms) - (fact.mono_ms - previous.mono_ms)
        if abs(jump) > CLOCK_JUMP_MS:
            lines.append(f"{'':12}  ---- the clock jumped by {show.duration(jump)} ----")
    at = _relative(fact, first) if first else show.moment(fact.at_ms)[11:]
    arrow = "" if fact.is_note else f"{fact.src} -> {fact.dst}"
    said = "".join(c if c.isprintable() else "\ufffd" for c in sentence(fact.kind, fact.values))
    lines.append(f"{at:>12}  {fact.stream:16} {arrow:32} {fact.kind}: {said}")
    return lines


def _relative(fact: Fact, first: Fact) -> str:
    if fact is first:
        return show.moment(fact.at_ms)[11:]
    if fact.boot_id == first.boot_id:
        return "+" + show.duration(fact.mono_ms - first.mono_ms)
    return show.moment(fact.at_ms)[11:]


def fact_json(fact: Fact) -> str:
    """One fact as a line of JSON; `said` is the sentence that people see."""
    import json

    from baserunner.words import sentence

    return json.dumps(
        {
            "lane": fact.lane.value,
            "seq": fact.seq,
            "n": fact.n,
            "stream": fact.stream,
            "kind": fact.kind,
            "src": fact.src,
            "dst": fact.dst,
            "at_ms": fact.at_ms,
            "boot_id": fact.boot_id,
            "mono_ms": fact.mono_ms,
            "data": fact.values,
            "said": sentence(fact.kind, fact.values),
            "hash": fact.hash.hex(),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _stream_json(info: Any) -> dict[str, object]:
    last = info.last
    return {
        "stream": info.name,
        "lane": info.lane.value,
        "state": info.state,
        "ended": info.ended,
        "last": None if last is None else {"kind": last.kind, "at_ms": last.at_ms, "seq": last.seq},
    }
