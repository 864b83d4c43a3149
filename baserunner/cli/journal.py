"""`baserunner journal list|show|tail|export|verify`: the story, on the device or on a copy of it."""

from __future__ import annotations

import os
import select
import sys
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
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="For example app-update/12.")],
    as_json: AsJson = False,  # noqa: FBT002
    file: File = None,
) -> None:
    """The story of one attempt: relative times, states, reboots, reasons in words."""
    with show.reader(file) as reader:
        try:
            facts = reader.facts(stream=stream)
        except ValueError:
            show.fail(f"{stream!r} is no stream: write <machine>/<attempt>, like app-update/12", 2)
        if not facts:
            show.fail(f"there is no stream {stream}: see `baserunner journal list`", 1)
        starts = [] if as_json else _starts(reader, facts)
    _print_facts(sorted(facts + starts, key=lambda fact: fact.n), as_json=as_json, first=facts[0])


def _starts(reader: Any, story: list[Fact]) -> list[Fact]:
    """When the agent started in the middle of this story: after a kill, a power cut, an update of its own."""
    starts = []
    for info in reversed(reader.streams("heartbeat")):
        begun = reader.facts(stream=info.name, limit=1)
        if begun and begun[0].n < story[0].n:
            break
        starts += [
            fact
            for fact in begun
            if fact.kind == "run-started"
            and fact.n < story[-1].n
            and fact.stream != story[0].stream
        ]
    return starts


@app.command()
def tail(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as facts come.")] = False,  # noqa: FBT002
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the newest.")] = 20,
    machine: Annotated[
        str | None,
        typer.Option("-m", "--machine", help="Only of this machine (app-update) or stream."),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
    file: File = None,
) -> None:
    """The newest facts of all machines, in their common order."""
    if machine is not None:
        show.machine_of(machine)
    with show.reader(file) as reader:
        after = reader.newest_n()
        facts = reader.tail(count) if machine is None else _tail_of(reader, machine, count)
        _print_facts(facts, as_json=as_json)
        if follow:
            after = facts[-1].n if facts and machine is None else after
            _follow(reader, after, machine, as_json=as_json)


def _tail_of(reader: Any, machine: str, count: int) -> list[Fact]:
    """The newest `count` facts of one machine or stream, the oldest of them first."""
    found: list[Fact] = []
    for info in reversed(reader.streams(machine.partition("/")[0])):
        if len(found) >= count:
            break
        if _is_of(info.name, machine):
            found = reader.facts(stream=info.name) + found
    found.sort(key=lambda fact: fact.n)
    return found[-count:] if count else []


def _is_of(stream: str, machine: str | None) -> bool:
    return machine is None or machine in {stream, stream.partition("/")[0]}


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
    from journal.problems import Damaged
    from journal.verify import Problem
    from journal.verify import verify as check

    with show.reader(file) as reader:
        try:
            found = check(reader)
        except Damaged as damaged:  # so badly that not even its ends can be read
            problems, events = [Problem(None, None, str(damaged))], 0
        else:
            problems, events = found.problems, found.events
    if as_json:
        faults = [{"lane": p.lane, "seq": p.seq, "what": p.what} for p in problems]
        show.as_json({"ok": not problems, "events": events, "problems": faults})
    elif not problems:
        typer.echo(f"{events} facts, chain unbroken in both lanes")
    else:
        rows = [[p.lane or "-", str(p.seq or "-"), show.plain(p.what)] for p in problems]
        show.table(["lane", "seq", "what is wrong"], rows, prose=["what is wrong"])
        typer.echo("keep a copy of the journal's files before anything else; Cloudly has its own")
    raise typer.Exit(1 if problems else 0)


def _follow(reader: Any, after: int, machine: str | None, *, as_json: bool) -> None:
    import anyio

    from interfaces.world import RealWorld

    async def follow() -> None:
        world, seen = RealWorld(), after
        while not _nobody_reads():
            fresh = reader.facts(after=seen, limit=500)
            _print_facts([f for f in fresh if _is_of(f.stream, machine)], as_json=as_json)
            seen = fresh[-1].n if fresh else seen
            await world.sleep(0.2)

    try:
        anyio.run(follow)
    except KeyboardInterrupt:
        raise typer.Exit from None
    except BrokenPipeError:
        os._exit(0)  # the reader of our pipe is gone; nothing of ours is lost


def _nobody_reads() -> bool:
    """Whether the other end of our pipe is closed: a journal that is quiet would never make us write, and notice."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except (OSError, ValueError):  # no file of the kernel's
        return False
    return bool(poll.poll(0))


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
    if first is not None and fact.stream != first.stream:
        return [f"{_relative(fact, first):>12}  ---- the agent started again ----"]
    if previous is not None and previous.boot_id != fact.boot_id:
        lines.append(f"{'':12}  ---- the host booted again ----")
    elif previous is not None:
        jump = (fact.at_ms - previous.at_ms) - (fact.mono_ms - previous.mono_ms)
        if abs(jump) > CLOCK_JUMP_MS:
            lines.append(f"{'':12}  ---- the clock jumped by {show.duration(jump)} ----")
    at = _relative(fact, first) if first else show.moment(fact.at_ms)[11:]
    arrow = "" if fact.is_note else f"{fact.src} -> {fact.dst}"
    said = "".join(c if c.isprintable() else "\ufffd" for c in sentence(fact.kind, fact.values))
    whose = "" if first else f"{fact.stream:16} "
    lines.append(f"{at:>12}  {whose}{arrow:32} {fact.kind}: {said}")
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
